/* A loop that leaves rounds out. */
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
		if (data[at] & 1)
			continue;
		sum += note(data[at]);
		if (sum > 300)
			return note(1);
	}
	return 2;
}
