/* Counters in a table, by what a packet has. */
#include "counted.h"

INLINE void count(u8 *table, u32 kind)
{
	u8 *slot = &table[kind & 3];

	if (*slot < 255)
		*slot = note(*slot + 1);
}

PROGRAM(ctx)
{
	u8 *data = DATA(ctx), *end = END(ctx);

	if (data + 16 > end)
		return 0;
	count(data + 8, data[0]);
	count(data + 8, data[1]);
	if (data[2] > 9)
		count(data + 12, data[2]);
	return 2;
}
