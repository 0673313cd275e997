/* A comparison of many bytes that the compiler does in parts. */
#include "counted.h"

PROGRAM(ctx)
{
	u8 *data = DATA(ctx), *end = END(ctx);

	if (data + 40 > end)
		return 0;
	data[36] = note(1);
	if (__builtin_memcmp(data, data + 16, 16) == 0)
		data[37] = note(2);
	data[38] = note(3);
	return 2;
}
