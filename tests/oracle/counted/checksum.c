/* A sum over words, folded twice. */
#include "counted.h"

INLINE u32 fold(u32 sum)
{
	if (sum >> 8)
		sum = note(sum & 255) + (sum >> 8);
	return sum;
}

PROGRAM(ctx)
{
	u8 *data = DATA(ctx), *end = END(ctx);
	u32 sum = 0;

	for (u32 at = 0; at < 20; at += 2) {
		if (data + at + 2 > end)
			break;
		sum += note(data[at]) + data[at + 1];
	}
	sum = fold(sum);
	if (sum & 1)
		sum = fold(sum * 5);
	return sum & 3;
}
