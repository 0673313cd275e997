/* A function of its own that is called at two places, and one that is inlined in both. */
#include "counted.h"

INLINE u32 twice(u32 value)
{
	return note(value) * 2;
}

ALONE u32 alone(u8 value)
{
	if (value > 40)
		return twice(value);
	return note(1);
}

PROGRAM(ctx)
{
	u8 *data = DATA(ctx), *end = END(ctx);
	u32 sum;

	if (data + 8 > end)
		return 0;
	sum = alone(data[0]);
	if (data[1] > 10)
		sum += alone(data[1]);
	sum += twice(data[2]);
	return sum & 3;
}
