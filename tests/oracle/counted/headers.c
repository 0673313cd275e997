/* A parser that inlines a check of bounds for each header. */
#include "counted.h"

INLINE u8 *pull(u8 **at, u8 *end, u32 size)
{
	u8 *here = *at;

	if (here + size > end)
		return 0;
	*at = here + size;
	return here;
}

PROGRAM(ctx)
{
	u8 *at = DATA(ctx), *end = END(ctx), *header;

	header = pull(&at, end, 4);
	if (!header)
		return note(0);
	if (header[0] < 20)
		return note(1);
	header = pull(&at, end, 8);
	if (!header)
		return note(2);
	header[1] = note(3);
	return 3;
}
