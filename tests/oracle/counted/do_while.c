/* A loop that is gone through at least once. */
#include "counted.h"

PROGRAM(ctx)
{
	u8 *data = DATA(ctx), *end = END(ctx);
	u32 n = 0;

	do {
		if (data + 1 > end)
			break;
		n += note(*data);
		data++;
	} while (n < 200);
	return n & 3;
}
