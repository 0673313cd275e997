"""A program whose result is what it finds in its variables and maps."""

from __future__ import annotations

from pathlib import Path

from .compiled import compile_bpf

SOURCE = """
enum mode { PASS, DROP = 7 };
struct rule { unsigned int limit; enum mode mode; unsigned short ports[2]; };
struct prefix { unsigned int bits; unsigned char data[4]; };
#define MAP(name, kind, K, V, n) \\
	struct { UINT(type, kind); TYPE(key, K); TYPE(value, V); UINT(max_entries, n); } \\
	name SEC(".maps")
MAP(ports, MAP_HASH, u16, u32, 2);
MAP(recent, MAP_LRU_HASH, u32, u64, 8);
MAP(cfg, MAP_ARRAY, u32, struct rule, 4);
MAP(counts, MAP_PERCPU_ARRAY, u32, u64, 1);
struct { UINT(type, MAP_LPM_TRIE); TYPE(key, struct prefix); TYPE(value, u32);
	UINT(max_entries, 8); UINT(map_flags, F_NO_PREALLOC); } routes SEC(".maps");
MAP(jumps, MAP_PROG_ARRAY, u32, u32, 2);
struct { UINT(type, MAP_QUEUE); TYPE(value, u32); UINT(max_entries, 2); } waiting SEC(".maps");
struct { UINT(type, MAP_RINGBUF); UINT(max_entries, 4096); } events SEC(".maps");
const volatile unsigned int scale = 1;
unsigned int start;
static HELPER(1, void *, lookup, void *, const void *);
static u32 rule(u32 index)
{
	struct rule *found = lookup(&cfg, &index);
	return found ? found->limit + found->mode * 100 + found->ports[1] : 0;
}
SEC("xdp") int run(struct xdp_md *ctx)
{
	u16 port = 80;
	u32 zero = 0, *one = lookup(&ports, &port), *far;
	u64 *count = lookup(&counts, &zero);
	struct prefix to = { 32, { 10, 1, 2, 3 } };
	far = lookup(&routes, &to);
	return (rule(2) + (one ? *one : 0) + (count ? *count : 0) + (far ? *far : 0) + start) * scale;
}
char _license[] SEC("license") = "GPL";
"""


def configured(folder: Path) -> Path:
    """The object.

    Its program gives (rule 2 + ports[80] + counts[0] + the route to 10.1.2.3 + start) * scale,
    where a rule counts as limit + 100 * mode + ports[1].
    """
    return compile_bpf(folder, SOURCE)
