/* A function with ways out, inlined at two places. */
#include "counted.h"

INLINE int check(u8 *at)
{
	if (at[0] < 16)
		return note(-1);
	if (at[1] < 32)
		return note(-2);
	return note(at[2]);
}

PROGRAM(ctx)
{
	u8 *data = DATA(ctx), *end = END(ctx);

	if (data + 8 > end)
		return 0;
	if (check(data) < 0)
		return note(1);
	if (check(data + 3) < 0)
		return note(2);
	return 3;
}
