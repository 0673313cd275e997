/* A loop in a loop. */
#include "counted.h"

PROGRAM(ctx)
{
	u8 *data = DATA(ctx), *end = END(ctx);
	u32 sum = 0, rows;

	if (data + 1 > end)
		return 0;
	rows = data[0] & 7;

	for (u32 row = 0; row < rows; row++) {
		if (data + row + 1 > end)
			break;
		for (u32 n = 0; n < (data[row] & 7); n++)
			sum += note(n);
		sum ^= note(row);
	}
	return note(sum);
}
