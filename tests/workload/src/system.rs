//! Linux's system calls, of which a program without a library needs the numbers: those of
//! include/uapi/asm-generic/unistd.h.

use core::arch::{asm, global_asm};
use core::fmt::{self, Write};

global_asm!(include_str!("entry.S"));

unsafe extern "C" {
    fn start_sharing(stack: usize, function: extern "C" fn(usize), argument: usize) -> isize;
}

/// A call that Linux refused: what was asked and the number of the error.
#[derive(Debug, Clone, Copy)]
pub struct Refused {
    /// The call's name.
    pub what: &'static str,
    /// As in errno.h.
    pub errno: isize,
}

/// What a call gives.
pub type Result<T> = core::result::Result<T, Refused>;

/// ENOSYS, EINVAL, ENODEV, EPERM and ENOMEM: this kernel, as it is configured or was started, does
/// without.
const ABSENT: [isize; 5] = [38, 22, 19, 1, 12];

impl Refused {
    /// Whether the kernel has no such thing.
    pub fn is_absent(self) -> bool {
        ABSENT.contains(&self.errno)
    }
}

/// Makes system call `number`.
///
/// # Safety
/// What the call does to this program's memory is the caller's to answer for.
unsafe fn call(what: &'static str, number: usize, arguments: [usize; 6]) -> Result<usize> {
    let [mut first, second, third, fourth, fifth, sixth] = arguments;
    // SAFETY: the caller's promise. Linux keeps all registers but X0.
    unsafe {
        asm!(
            "svc #0",
            in("x8") number,
            inlateout("x0") first,
            in("x1") second,
            in("x2") third,
            in("x3") fourth,
            in("x4") fifth,
            in("x5") sixth,
            options(nostack)
        );
    }
    match first as isize {
        error @ -4095..0 => Err(Refused { what, errno: -error }),
        _ => Ok(first),
    }
}

/// Who may do what with pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum Access {
    /// Nobody anything.
    None = 0,
    /// Read.
    Read = 1,
    /// Read and write.
    Write = 3,
    /// Read and execute.
    Execute = 5,
}

/// What is advised of pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum Advice {
    /// They are zeros from now on.
    DontNeed = 4,
    /// They may become zeros.
    Free = 8,
    /// Large ones are wanted.
    Huge = 14,
    /// They are not used soon: their access flag is cleared.
    Cold = 20,
    /// They are to be written to swap, or to their file.
    PageOut = 21,
}

/// Pages of whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pages {
    /// Of this process.
    Private,
    /// Of this process and its children.
    Shared,
    /// Of two to this power bytes each, which the administrator has set aside.
    Reserved(u32),
    /// Of this file.
    Of(File),
}

/// An open file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct File(usize);

/// mmap: `len` bytes at an address of Linux's choice.
pub fn map(len: usize, pages: Pages) -> Result<usize> {
    // MAP_SHARED, MAP_PRIVATE, MAP_ANONYMOUS, MAP_HUGETLB, and the size's logarithm from bit 26 on.
    let (flags, file) = match pages {
        Pages::Private => (0x2 | 0x20, usize::MAX),
        Pages::Shared => (0x1 | 0x20, usize::MAX),
        Pages::Reserved(power) => (0x2 | 0x20 | 0x4_0000 | (power as usize) << 26, usize::MAX),
        Pages::Of(File(file)) => (0x1, file),
    };
    // SAFETY: nothing was there.
    unsafe { call("mmap", 222, [0, len, Access::Write as usize, flags, file, 0]) }
}

/// munmap.
///
/// # Safety
/// Nobody uses the range any more.
pub unsafe fn unmap(at: usize, len: usize) -> Result<()> {
    // SAFETY: the caller's promise.
    unsafe { call("munmap", 215, [at, len, 0, 0, 0, 0]) }.map(drop)
}

/// mprotect.
///
/// # Safety
/// Nobody uses the range in another way from now on.
pub unsafe fn protect(at: usize, len: usize, access: Access) -> Result<()> {
    // SAFETY: the caller's promise.
    unsafe { call("mprotect", 226, [at, len, access as usize, 0, 0, 0]) }.map(drop)
}

/// madvise.
///
/// # Safety
/// The caller can do with what the range holds afterwards.
pub unsafe fn advise(at: usize, len: usize, advice: Advice) -> Result<()> {
    // SAFETY: the caller's promise.
    unsafe { call("madvise", 233, [at, len, advice as usize, 0, 0, 0]) }.map(drop)
}

/// mremap: the pages of a range go to another, whatever was there.
///
/// # Safety
/// Nobody uses the first range any more, and what was in the second.
pub unsafe fn remap(at: usize, len: usize, to: usize) -> Result<()> {
    // SAFETY: the caller's promise; MREMAP_MAYMOVE and MREMAP_FIXED.
    unsafe { call("mremap", 216, [at, len, len, 3, to, 0]) }.map(drop)
}

/// A new file in memory, `len` bytes long.
pub fn memory_file(len: usize) -> Result<File> {
    // SAFETY: the name ends with a NUL.
    let file = unsafe { call("memfd_create", 279, [c"workload".as_ptr() as usize, 0, 0, 0, 0, 0]) }?;
    sized(File(file), len)
}

/// A new file in memory that the kernel's linear map leaves out, `len` bytes long.
pub fn secret_file(len: usize) -> Result<File> {
    // SAFETY: no memory takes part.
    let file = unsafe { call("memfd_secret", 447, [0; 6]) }?;
    sized(File(file), len)
}

fn sized(file: File, len: usize) -> Result<File> {
    // SAFETY: no memory takes part.
    unsafe { call("ftruncate", 46, [file.0, len, 0, 0, 0, 0]) }?;
    Ok(file)
}

/// Writes back what was written to a range of a file.
pub fn sync(at: usize, len: usize) -> Result<()> {
    // SAFETY: it changes no memory; MS_SYNC.
    unsafe { call("msync", 227, [at, len, 4, 0, 0, 0]) }.map(drop)
}

/// close.
pub fn close(file: File) -> Result<()> {
    // SAFETY: mappings of the file stay.
    unsafe { call("close", 57, [file.0, 0, 0, 0, 0, 0]) }.map(drop)
}

/// Opens a socket and gives it a filter of `instructions` that pass everything, which the kernel
/// compiles to its own text.
pub fn filtered_socket(instructions: &[u64]) -> Result<File> {
    // struct sock_fprog: the number of instructions and where they are.
    let program = [instructions.len(), instructions.as_ptr() as usize];
    // SAFETY: no memory takes part; AF_UNIX, SOCK_DGRAM.
    let socket = unsafe { call("socket", 198, [1, 2, 0, 0, 0, 0]) }?;
    let program = program.as_ptr() as usize;
    // SAFETY: the kernel reads 16 bytes, and the instructions; SOL_SOCKET, SO_ATTACH_FILTER.
    unsafe { call("setsockopt", 208, [socket, 1, 26, program, 16, 0]) }?;
    Ok(File(socket))
}

/// A process that this one started.
#[derive(Debug)]
#[must_use = "it stays until it is waited for"]
pub struct Child(usize);

impl Child {
    /// Starts a copy of this process, which does `work` and ends.
    pub fn copy(work: impl FnOnce() -> Result<()>) -> Result<Self> {
        // SAFETY: the copy has its own memory; SIGCHLD tells of its end.
        match unsafe { call("clone", 220, [17, 0, 0, 0, 0, 0]) }? {
            0 => exit(work()),
            child => Ok(Self(child)),
        }
    }

    /// Starts a process that shares this one's memory, on a stack that ends at `stack`.
    ///
    /// # Safety
    /// The stack is nobody's else until the process was waited for, and neither is what `argument`
    /// leads `function` to unless both may use it.
    pub unsafe fn sharing(stack: usize, function: extern "C" fn(usize), argument: usize) -> Result<Self> {
        // SAFETY: the caller's promise.
        match unsafe { start_sharing(stack, function, argument) } {
            error @ -4095..0 => Err(Refused { what: "clone", errno: -error }),
            child => Ok(Self(child as usize)),
        }
    }

    /// Waits for its end, which has to be a good one.
    pub fn wait(self) -> Result<()> {
        let mut status = 0_u32;
        let at = &raw mut status as usize;
        // SAFETY: the kernel writes 4 bytes; __WALL.
        unsafe { call("wait4", 260, [self.0, at, 0x4000_0000, 0, 0, 0]) }?;
        match status {
            0 => Ok(()),
            status => Err(Refused { what: "a child", errno: status as isize }),
        }
    }
}

/// Runs on CPU `number` alone from now on; where there is none, wherever it was.
pub fn go_to_cpu(number: usize) {
    let mask = 1_u64 << (number % 64);
    // SAFETY: the kernel reads 8 bytes; sched_setaffinity.
    let _ = unsafe { call("sched_setaffinity", 122, [0, 8, &raw const mask as usize, 0, 0, 0]) };
}

/// Lets others run.
pub fn give_way() {
    // SAFETY: no memory takes part; sched_yield.
    let _ = unsafe { call("sched_yield", 124, [0; 6]) };
}

/// Ends the process.
pub fn exit(end: Result<()>) -> ! {
    if let Err(Refused { what, errno }) = end {
        say(format_args!("workload: {what}: error {errno}\n"));
    }
    // SAFETY: nothing of this process is used again; exit_group.
    let _ = unsafe { call("exit_group", 94, [usize::from(end.is_err()), 0, 0, 0, 0, 0]) };
    loop {
        core::hint::spin_loop();
    }
}

/// Writes a line to standard output.
pub fn say(line: fmt::Arguments<'_>) {
    let _ = Console.write_fmt(line);
}

struct Console;

impl Write for Console {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        // SAFETY: the kernel reads the text.
        let written = unsafe { call("write", 64, [1, text.as_ptr() as usize, text.len(), 0, 0, 0]) };
        written.map(drop).map_err(|_| fmt::Error)
    }
}
