/* Conditions of several parts on one line. */
#include "counted.h"

PROGRAM(ctx)
{
	u8 *data = DATA(ctx), *end = END(ctx);
	u32 found = 0;

	if (data + 4 > end)
		return 0;
	if (data[0] == 10 && data[1] == 20)
		found += note(1);
	if (data[0] == 50 || data[2] == 30)
		found += note(2);
	data[3] = found;
	return 2;
}
