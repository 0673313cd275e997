/* Functions that are inlined in one another. */
#include "counted.h"

INLINE u32 leaf(u8 *at)
{
	return note(*at) * 3;
}

INLINE u32 middle(u8 *at)
{
	if (*at > 30)
		return leaf(at + 1);
	return leaf(at + 2) + 1;
}

PROGRAM(ctx)
{
	u8 *data = DATA(ctx), *end = END(ctx);
	u32 sum;

	if (data + 16 > end)
		return 0;
	sum = middle(data);
	if (sum & 1)
		sum += middle(data + 4);
	data[15] = sum;
	return 2;
}
