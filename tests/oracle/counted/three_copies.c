/* A function that is inlined at three places, each under a condition. */
#include "counted.h"

INLINE void mark(u8 *at, u8 value)
{
	*at = note(value);
}

PROGRAM(ctx)
{
	u8 *data = DATA(ctx), *end = END(ctx);

	if (data + 8 > end)
		return 0;
	if (data[0] > 20)
		mark(data + 1, 1);
	if (data[4] > 40)
		mark(data + 2, 2);
	if (data[5] > 60)
		mark(data + 3, 3);
	return 2;
}
