/* Macros that stand for several instructions. */
#include "counted.h"

#define SWAP(a, b) do { u8 kept = note(a); (a) = note(b); (b) = kept; } while (0)

PROGRAM(ctx)
{
	u8 *data = DATA(ctx), *end = END(ctx);

	if (data + 8 > end)
		return 0;
	SWAP(data[0], data[1]);
	if (data[2] > 40)
		SWAP(data[2], data[3]);
	SWAP(data[4], data[5]);
	return 2;
}
