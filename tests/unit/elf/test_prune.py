"""What only removed code had used goes with it, and nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bpfpatch.btf import DataSec, Kind
from bpfpatch.btf.prune import unneeded, without_types
from bpfpatch.elf import ElfObject
from bpfpatch.errors import OptionError
from bpfpatch.passes import Pipeline
from bpfpatch.verify import Bounds, verify_objects
from support.inputs.bpfobjects import fixture_objects
from support.inputs.compiled import compile_bpf
from support.machine.tools import loaded, need_bpf

SOURCE = """
#define MAP(name) struct { \\
    UINT(type, MAP_HASH); UINT(max_entries, 64); \\
    TYPE(key, u32); TYPE(value, struct name##_value); \\
} name SEC(".maps")
struct rare_value { u64 a; };
struct often_value { u64 b; };
struct idle_value { u64 c; };
MAP(rare);
MAP(often);
MAP(idle);
const volatile bool use_rare = 0;
const volatile bool use_often = 1;
u64 counts[4];
extern void bpf_rcu_read_lock(void) KSYM;
extern void bpf_rcu_read_unlock(void) KSYM;
NOINLINE static int expensive(u32 key) {
    u64 *found = bpf_map_lookup_elem(&rare, &key);
    bpf_rcu_read_lock();
    bpf_rcu_read_unlock();
    counts[2]++;
    return found ? *found : 7;
}
SEC("tc") int run(struct __sk_buff *skb) {
    u32 key = 1;
    u64 *found;
    if (use_rare) return expensive(skb->mark);
    if (!use_often) return 0;
    found = bpf_map_lookup_elem(&often, &key);
    return found ? *found : 0;
}
LICENSE;
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> ElfObject:
    """A program, of which a switch takes a part away."""
    return ElfObject.read(compile_bpf(tmp_path_factory.mktemp("prune"), SOURCE))


def small(obj: ElfObject, **values: int) -> ElfObject:
    """The object with its switches set, without what is not needed so."""
    given = obj.with_values(values)
    return Pipeline.parse("const,dce{maps=true},nops").run_object(given)[0]


def names(obj: ElfObject) -> set[str]:
    """Names of all symbols."""
    return {one.name for one in obj.symbols}


def rows(obj: ElfObject) -> dict[str, set[str]]:
    """By data section in BTF, its variables."""
    assert obj.btf is not None
    out = {}
    for one in obj.btf:
        if isinstance(one, DataSec):
            out[one.name] = {obj.btf.name_of(row.type_id) for row in one.variables}
    return out


def test_what_removed_code_used_is_gone(source: ElfObject) -> None:
    """Its map, switch, counters and kernel functions leave symbols and BTF, with their types."""
    after = small(source, use_rare=0)
    gone = {"rare", "use_rare", "counts", "bpf_rcu_read_lock", "bpf_rcu_read_unlock"}
    assert names(source) - names(after) >= gone
    assert rows(source)[".ksyms"] == {"bpf_rcu_read_lock", "bpf_rcu_read_unlock"}
    assert rows(after) == {
        ".maps": {"often", "idle"},
        ".rodata": {"use_often"},
        "license": {"_license"},
    }
    assert after.btf is not None
    for name in ("rare_value", "rare", "expensive", "bpf_rcu_read_lock"):
        assert source.btf.find(name)
        assert not after.btf.find(name)
    assert after.btf.find("often_value")
    assert "map rare" in after.notices[-1]
    assert ".bss" not in {one.name for one in after.sections}


def test_what_nothing_used_stays(source: ElfObject) -> None:
    """A map that no code ever used is user space's, and stays with its types."""
    after = small(source, use_rare=0, use_often=0)
    assert {one.name for one in after.maps} == {"idle"}
    assert after.btf is not None
    assert after.btf.find("idle_value")
    assert not after.btf.find("often_value")


def test_without_the_option_all_stays(source: ElfObject) -> None:
    """Plain dce leaves maps and types alone."""
    given = source.with_values({"use_rare": 0})
    after = Pipeline.parse("const,dce").run_object(given)[0]
    assert {one.name for one in after.maps} == {one.name for one in source.maps}
    assert after.btf is not None
    assert after.btf.to_bytes() == source.btf.to_bytes()


def test_flat_programs_have_no_maps(source: ElfObject) -> None:
    """The option is refused where there is no object."""
    with pytest.raises(OptionError, match="run it on an object"):
        Pipeline.parse("dce{maps=true}").run(source.link("run").program)


def test_nothing_to_remove_is_no_change() -> None:
    """Where no code goes, the object stays byte for byte."""
    n_same = 0
    for name, data in fixture_objects()[::6]:
        obj = ElfObject.parse(data)
        plain, _ = Pipeline.parse("dce").run_object(obj)
        pruned, _ = Pipeline.parse("dce{maps=true}").run_object(obj)
        if plain == obj:
            assert pruned == obj, name
            n_same += 1
    assert n_same >= 5


def test_types_keep_their_records(source: ElfObject) -> None:
    """Types that stay are the same but for their numbers, and refer to the same ones."""
    btf = source.btf
    assert btf is not None
    (var,) = btf.find("rare", Kind.VAR)
    sections = [at for at in range(len(btf)) if isinstance(btf.type(at), DataSec)]
    left = unneeded(btf, {var, *sections}, {btf.find("often", Kind.VAR)[0]})
    new, new_id = without_types(btf, left)
    assert len(new) == len(btf) - len(left)
    for old in range(1, len(btf)):
        if old in left:
            assert new_id[old] == 0
        elif btf.head(old).number != Kind.FUNC_PROTO:
            assert new.type_name(int(new_id[old])) == btf.type_name(old)
            assert new.name_of(int(new_id[old])) == btf.name_of(old)
    assert np.count_nonzero(new_id) == len(new) - 1


@pytest.mark.kernel
def test_the_kernel_has_no_map_of_what_is_gone(source: ElfObject, tmp_path: Path) -> None:
    """The result loads, without the map; the maps that stay are there."""
    need_bpf()
    out = tmp_path / "small.o"
    small(source, use_rare=0).write(out)
    with loaded(out) as pinned:
        pins = set(pinned.maps)
    assert "often" in pins
    assert "rare" not in pins


NESTED = """
struct inner { UINT(type, MAP_ARRAY); UINT(max_entries, 1); TYPE(key, u32); TYPE(value, u64); };
struct inner first SEC(".maps");
struct inner shared SEC(".maps");
struct {
    UINT(type, MAP_ARRAY_OF_MAPS); UINT(max_entries, 2);
    TYPE(key, u32); VALUES(values, struct inner);
} outer SEC(".maps") = { .values = { &first, &shared } };
const volatile bool use_outer = 0;
SEC("tc") int run(struct __sk_buff *skb) {
    u32 key = 0;
    u64 *found = bpf_map_lookup_elem(&shared, &key);
    u64 out = found ? *found : 0;
    if (use_outer) {
        void *map = bpf_map_lookup_elem(&outer, &key);
        found = map ? bpf_map_lookup_elem(map, &key) : NULL;
        out += found ? *found : 0;
    }
    return out;
}
LICENSE;
"""


@pytest.mark.kernel
def test_maps_within_a_map_go_with_it(tmp_path: Path) -> None:
    """What only a removed map held goes, what code uses as well stays, and the rest loads."""
    obj = ElfObject.read(compile_bpf(tmp_path, NESTED))
    after = small(obj, use_outer=0)
    assert {one.name for one in after.maps} == {"shared"}
    kept = Pipeline.parse("const,dce{maps=true},nops").run_object(obj.with_values({"use_outer": 1}))
    assert {one.name for one in kept[0].maps} == {"first", "shared", "outer"}
    need_bpf()
    out = tmp_path / "small.o"
    after.write(out)
    with loaded(out) as pinned:
        assert set(pinned.maps) >= {"shared"}


def test_verify_compares_addresses_without_the_removed_map(tmp_path: Path) -> None:
    """A context that holds addresses is the same before and after, with fewer maps."""
    text = SOURCE.replace('SEC("tc") int run(struct __sk_buff *skb) {', (
        'SEC("iter/task") int run(struct { u64 mark; u64 len; } *skb) {'
    ))  # fmt: skip
    obj = ElfObject.read(compile_bpf(tmp_path, text)).with_values({"use_rare": 0})
    after = small(obj, use_rare=0)
    (verdict,) = verify_objects(obj, after, bounds=Bounds(seconds=1, runs=200))
    assert verdict.is_checked
    assert not verdict.differs
