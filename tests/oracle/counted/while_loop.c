/* A loop that ends by what it reads. */
#include "counted.h"

PROGRAM(ctx)
{
	u8 *data = DATA(ctx), *end = END(ctx);
	u32 left;

	if (data + 1 > end)
		return 0;
	left = *data & 31;
	while (left > 0) {
		if (data + 1 > end)
			return 1;
		if (*data == 90)
			return note(2);
		data++;
		left--;
	}
	return 3;
}
