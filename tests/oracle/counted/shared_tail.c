/* Two paths that end in the same statements. */
#include "counted.h"

INLINE void finish(u8 *data, u32 value)
{
	data[1] = note(value);
	data[2] = note(value >> 8);
}

PROGRAM(ctx)
{
	u8 *data = DATA(ctx), *end = END(ctx);

	if (data + 8 > end)
		return 0;
	if (data[0] > 50) {
		finish(data, 500);
		return 1;
	}
	if (data[0] > 25) {
		finish(data, 250);
		return 2;
	}
	finish(data, 0);
	return 3;
}
