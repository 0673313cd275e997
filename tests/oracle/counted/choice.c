/* Expressions with a choice, on one line. */
#include "counted.h"

INLINE u32 low(u8 *at)
{
	return note(at[1]);
}

INLINE u32 high(u8 *at)
{
	return note(at[2]) + 7;
}

PROGRAM(ctx)
{
	u8 *data = DATA(ctx), *end = END(ctx);

	if (data + 8 > end)
		return 0;
	data[6] = data[0] > 30 ? high(data) : low(data);
	data[7] = data[5] > 30 ? high(data + 3) : low(data + 3);
	return 2;
}
