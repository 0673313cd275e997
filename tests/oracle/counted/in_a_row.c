/* A function that is inlined twice in a row, in straight-line code. */
#include "counted.h"

INLINE void mark(u8 *at, u8 value)
{
	u8 before = note(*at);

	*at = before ^ value;
}

PROGRAM(ctx)
{
	u8 *data = DATA(ctx), *end = END(ctx);

	if (data + 8 > end)
		return 0;
	mark(data + 1, 1);
	mark(data + 2, 2);
	return 2;
}
