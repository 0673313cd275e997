/* A loop that the compiler unrolls, with a condition in it. */
#include "counted.h"

PROGRAM(ctx)
{
	u8 *data = DATA(ctx), *end = END(ctx);
	u32 sum = 0;

	if (data + 8 > end)
		return 0;
#pragma clang loop unroll(full)
	for (u32 at = 0; at < 4; at++) {
		if (data[at] > 40)
			sum += note(data[at + 4]);
	}
	data[7] = sum;
	return 2;
}
