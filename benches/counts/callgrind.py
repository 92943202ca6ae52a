"""What callgrind wrote, read: how many instructions a thread has executed, in whose code, whom it asked for memory, and how
often it read the clock.

An instruction belongs to the crate whose source it comes from, wherever it was inlined. What comes from Rust's own library
belongs to whoever it was inlined into; a function of that library is its first type's that is another crate's. What has no
source is its library's; in a program that is linked statically, libc's.

https://valgrind.org/docs/manual/cl-format.html has the format.
"""

import collections
import pathlib
import re

# They are counted where they are called, and not where they call each other.
ALLOCATORS = re.compile(r"^(__libc_)?(malloc|calloc|realloc|posix_memalign|aligned_alloc|memalign)$")
ASKS_FOR_MEMORY = re.compile(r"^(__libc_)?(malloc|calloc|realloc|posix_memalign|aligned_alloc|memalign)|^_?int_|^_mid_|tcache")
READS_CLOCK = re.compile(r"^<?(std|tokio)::time::(instant::)?(Instant|SystemTime)>?::(now|elapsed)$")
OURS = "portcullis"
RUST = "Rust's library"
OF_RUST = ("core", "alloc", "std", "hashbrown", "__rustc")
NAME = re.compile(r"(c?(?:ob|fl|fi|fe|fn))=(?:\((\d+)\))? ?(.*)")
CRATE = re.compile(r"/registry/src/[^/]+/([A-Za-z0-9_-]+?)-\d+\.")
FIRST_NAMES = re.compile(r"(?<![\w:])([a-z_][a-z0-9_]*)::")


class Thread:
    """One file: what one thread did between two dumps."""

    def __init__(self, file):
        self.total = 0
        # By function, its place and the source of the instruction.
        self.own = collections.Counter()
        # How often one function has called another, and what that took with all that it called.
        self.calls, self.inclusive = collections.Counter(), collections.Counter()
        # How often the clock was read, by whose code.
        self.reads = collections.Counter()
        self.read(file)

    def read(self, file):
        names, at = {}, {"ob": "", "fl": "", "fn": "", "here": "", "cob": "", "cfn": ""}
        times = None
        for line in pathlib.Path(file).read_text(errors="replace").splitlines():
            if not line:
                continue
            if line[0] in "0123456789+-*":
                cost = int(line.split()[1])
                if times is None:
                    self.own[(at["ob"], at["fl"], at["fn"], at["here"])] += cost
                    self.total += cost
                else:
                    self.calls[(at["fn"], at["cfn"])] += times
                    self.inclusive[(at["fn"], at["cfn"])] += cost
                    # One may stand on another: `elapsed` on `now`, tokio's on that of Rust's library.
                    if READS_CLOCK.match(at["cfn"]) and not READS_CLOCK.match(at["fn"]):
                        self.reads[owner(at["ob"], at["fl"], at["fn"], at["here"])] += times
                    times = None
            elif line.startswith("calls="):
                times = int(line[6:].split()[0])
            elif (found := NAME.match(line)):
                self.take(found, names, at)

    @staticmethod
    def take(found, names, at):
        """A line that says where what follows is. A name is written once, and is a number from then on."""
        key, number, text = found.groups()
        space = {"cob": "ob", "fi": "fl", "fe": "fl", "cfi": "fl", "cfl": "fl", "cfn": "fn"}.get(key, key)
        text = names.setdefault((space, number), text) if number and not text else text
        if number and text:
            names[(space, number)] = text
        if key in ("fl", "fi", "fe"):
            at["here"] = text
        if key == "fn":
            at["fl"] = at["here"]
        if key in at:
            at[key] = text

    def has(self, name):
        """Whether a function of that name was called."""
        return any(name in function for _, _, function, _ in self.own)

    def allocations(self):
        """How often memory was asked for."""
        return sum(times for (caller, callee), times in self.calls.items()
                   if ALLOCATORS.match(callee) and not ASKS_FOR_MEMORY.match(caller))

    def clock_reads(self):
        """How often our own code read the clock. What only hands `Instant::now` on is Rust's library."""
        return sum(times for whose, times in self.reads.items() if whose == RUST or whose.startswith(OURS))

    def by_owner(self):
        """Instructions by crate; ours by room."""
        owners = collections.Counter()
        for (library, home, function, here), cost in self.own.items():
            owners[owner(library, home, function, here)] += cost
        return owners

    def by_function(self):
        """A function's own instructions, with those of what was inlined into it."""
        functions = collections.Counter()
        for (_, _, function, _), cost in self.own.items():
            functions[function] += cost
        return functions


def owner(library, home, function, here):
    """Whose an instruction is."""
    for file in (here, home):
        named = crate(file)
        if named and named != RUST:
            return named
    program = pathlib.Path(library).name
    if not program.startswith(OURS):
        return "libc" if program.startswith(("libc.", "libc-", "ld-linux", "libm.")) else program
    others = [name for name in FIRST_NAMES.findall(function) if name not in OF_RUST]
    if others:
        return others[0].replace("_", "-") if others[0] != OURS else f"{OURS}: {room_of(function)}"
    if "aws_lc" in function:
        return "aws-lc-sys"
    return RUST if "::" in function or function.startswith("_R") else "libc"


def crate(file):
    if (found := CRATE.search(file)):
        return found.group(1).replace("_", "-")
    if "/rustc/" in file or "/rust/deps/" in file or "/lib/rustlib/" in file:
        return RUST
    if (found := re.search(r"(?:^|/)src/([a-z_]+)(?:\.rs|/)", file)) and "/rustc/" not in file:
        return f"{OURS}: {found.group(1)}"
    return None


def room_of(function):
    return re.search(rf"{OURS}::([a-z_]+)", function).group(1)
