/* A switch with a few cases. */
#include "counted.h"

PROGRAM(ctx)
{
	u8 *data = DATA(ctx), *end = END(ctx);

	if (data + 8 > end)
		return 0;
	switch (data[0]) {
	case 10:
		data[1] = note(1);
		break;
	case 50:
		data[2] = note(2);
		break;
	case 90:
		data[3] = note(3);
		break;
	default:
		data[4] = note(4);
	}
	return 2;
}
