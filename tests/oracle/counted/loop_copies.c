/* A loop that is inlined at two places. */
#include "counted.h"

INLINE u32 total(u8 *at, u8 *end)
{
	u32 sum = 0;

	for (u32 n = 0; n < (u32)(*at & 15); n++) {
		if (at + n + 1 > end)
			break;
		sum += note(at[n]);
	}
	return sum;
}

PROGRAM(ctx)
{
	u8 *data = DATA(ctx), *end = END(ctx);
	u32 sum;

	if (data + 8 > end)
		return 0;
	sum = total(data, end);

	if (data[1] > 40)
		sum += total(data + 4, end);
	data[0] = sum;
	return 2;
}
