/* An error path at the end that several places lead to. */
#include "counted.h"

PROGRAM(ctx)
{
	u8 *data = DATA(ctx), *end = END(ctx);

	if (data + 8 > end)
		goto out;
	if (data[0] == 1)
		goto bad;
	data[1] = note(5);
	if (data[2] > 100)
		goto bad;
	data[3] = note(6);
	return 2;
bad:
	data[4] = note(7);
out:
	return 0;
}
