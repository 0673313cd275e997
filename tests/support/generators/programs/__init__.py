"""Random programs: one room, a kind for each thing that tests need of them.

| kind | form | what holds of it |
| --- | --- | --- |
| `random_code` | text | ends, whatever the registers hold at first; no loader needed |
| `verifiable_code` | text | a socket filter that the verifier accepts; R0 depends on all it did |
| `memory_code` | text | the same on plain memory, with maps and helpers |
| `crowded_code` | text | the same with every register taken and frames nearly full |
| `acceptable_case` | `ParityCase` | any kind of program, with all that the kernel rewrites |
| `insn_soup` | `Program` | any control flow, most of it nonsense |
| `random_program` | `Program` | structurally valid, with line and func info and labels |
| `decorated` | `Program` | that with sections, roots, columns and tables of users |

A kind's text is written by a `Writer` (`writer.py`): its choices are methods, and a kind overrides
those in which it differs. The same seed gives the same program.
"""

from support.generators.programs.accepted import acceptable_case
from support.generators.programs.crowded import crowded_code
from support.generators.programs.ending import random_code
from support.generators.programs.memory import memory_code
from support.generators.programs.soup import insn_soup
from support.generators.programs.structured import decorated, random_program
from support.generators.programs.verified import verifiable_code

__all__ = [
    "acceptable_case",
    "crowded_code",
    "decorated",
    "insn_soup",
    "memory_code",
    "random_code",
    "random_program",
    "verifiable_code",
]
