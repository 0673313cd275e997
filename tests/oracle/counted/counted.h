/* One source for two compilers: a BPF object, and a host program that reads packets.
 *
 * PROGRAM(ctx) is the program, DATA and END its packet. note(x) is x, and a call that is kept.
 */
typedef unsigned char u8;
typedef unsigned int u32;
typedef unsigned long long u64;

#ifdef __bpf__
#define SEC(name) __attribute__((section(name), used))
struct xdp_md { u32 data, data_end, data_meta, ingress, queue, egress; };
#define DATA(ctx) ((u8 *)(long)(ctx)->data)
#define END(ctx) ((u8 *)(long)(ctx)->data_end)
#define INLINE static inline __attribute__((always_inline))
#define ALONE static __attribute__((noinline))
#define PROGRAM(ctx) SEC("xdp") int program(struct xdp_md *ctx)
static u32 (*note_number)(u32) = (void *)7; /* bpf_get_prandom_u32, which takes nothing */
/* No two are alike, so that the compiler does not make one of them. */
#define note(x) ({ u32 value_ = (x) + (note_number(__COUNTER__) & 0); \
	__asm__ volatile("# " TEXT(__COUNTER__) : "+r"(value_)); value_; })
#define TEXT(x) TEXT_(x)
#define TEXT_(x) #x
char _license[] SEC("license") = "GPL";
#else
#include <stdio.h>
struct xdp_md { u8 *data, *data_end; };
#define DATA(ctx) ((ctx)->data)
#define END(ctx) ((ctx)->data_end)
#define INLINE static
#define ALONE static
#define PROGRAM(ctx) int program(struct xdp_md *ctx)
#define note(x) (x)
int program(struct xdp_md *ctx);
int main(void)
{
	u8 packet[256];
	int size;
	while ((size = getchar()) != EOF) {
		fread(packet, 1, size, stdin);
		struct xdp_md ctx = {packet, packet + size};
		program(&ctx);
	}
	return 0;
}
#endif
