/* A small machine that goes from state to state. */
#include "counted.h"

PROGRAM(ctx)
{
	u8 *data = DATA(ctx), *end = END(ctx);
	u32 state = 0, most;

	if (data + 1 > end)
		return 0;
	most = data[0] & 31;
	for (u32 at = 0; at < most; at++) {
		if (data + at + 1 > end)
			return state;
		u32 value = note(data[at]);
		if (state == 0 && value > 50)
			state = note(1);
		else if (state == 1 && value < 20)
			state = note(2);
		else if (state == 2)
			return note(3);
	}
	return state;
}
