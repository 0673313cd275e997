/* A loop over a packet, with a way out. */
#include "counted.h"

PROGRAM(ctx)
{
	u8 *data = DATA(ctx), *end = END(ctx);
	u32 sum = 0, most;

	if (data + 1 > end)
		return 0;
	most = data[0] & 31;
	for (u32 at = 0; at < most; at++) {
		if (data + at + 1 > end)
			break;
		sum += note(data[at]);
	}
	data[0] = sum;
	return 2;
}
