//! tcpdump's filter language, compiled by the library that tcpdump itself uses.
//!
//! libpcap is loaded when a filter is used, and not linked: who never captures with a filter does not
//! need it. What comes back is a program that any machine can run ([`crate::packet::bpf`]).
#![allow(unsafe_code, reason = "a library in C that is loaded at run time")]

use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};
use std::ptr::NonNull;

use crate::packet::bpf::Instruction;

/// Its name on Linux: Debian's and that of everybody else.
const LIBRARIES: [&CStr; 2] = [c"libpcap.so.0.8", c"libpcap.so.1"];
const LINKTYPE_ETHERNET: c_int = 1;
/// Larger than any super-frame.
const SNAP: c_int = 262_144;
/// `PCAP_NETMASK_UNKNOWN`: only the word `broadcast` of IPv4 needs to know.
const NETMASK_UNKNOWN: c_uint = c_uint::MAX;

/// Why a filter could not be compiled.
#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    /// There is no library.
    #[error("filters need the library libpcap, which is not here: {0}")]
    NoLibrary(String),
    /// It is in another language.
    #[error("`{filter}` is not a filter: {why}")]
    Syntax {
        /// As given.
        filter: String,
        /// What the library says.
        why: String,
    },
}

/// `struct bpf_program` and `struct bpf_insn` of pcap/bpf.h.
#[repr(C)]
struct RawProgram {
    length: c_uint,
    instructions: *mut RawInstruction,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct RawInstruction {
    code: u16,
    jt: u8,
    jf: u8,
    k: u32,
}

type Symbol = *mut c_void;
type OpenDead = unsafe extern "C" fn(c_int, c_int) -> *mut c_void;
type Compile =
    unsafe extern "C" fn(*mut c_void, *mut RawProgram, *const c_char, c_int, c_uint) -> c_int;
type GetError = unsafe extern "C" fn(*mut c_void) -> *const c_char;
type FreeCode = unsafe extern "C" fn(*mut RawProgram);
type Close = unsafe extern "C" fn(*mut c_void);

/// The functions that we call.
struct Pcap {
    open_dead: OpenDead,
    compile: Compile,
    error: GetError,
    free_code: FreeCode,
    close: Close,
}

/// Compiles a filter for Ethernet frames.
pub fn compile(filter: &str) -> Result<Vec<Instruction>, FilterError> {
    let syntax = |why: &str| FilterError::Syntax { filter: filter.to_owned(), why: why.to_owned() };
    let text = CString::new(filter).map_err(|_| syntax("it contains a zero byte"))?;
    let pcap = Pcap::load()?;
    // SAFETY: it takes two numbers and gives a handle that only the calls below use.
    let handle = unsafe { (pcap.open_dead)(LINKTYPE_ETHERNET, SNAP) };
    if handle.is_null() {
        return Err(FilterError::NoLibrary("it has no memory".to_owned()));
    }
    let mut program = RawProgram { length: 0, instructions: std::ptr::null_mut() };
    // SAFETY: the handle is open, the text ends with a zero, and `program` lives across the call.
    let done =
        unsafe { (pcap.compile)(handle, &raw mut program, text.as_ptr(), 1, NETMASK_UNKNOWN) };
    let compiled = if done == 0 {
        // SAFETY: the library has filled in a pointer to so many instructions.
        let all =
            unsafe { std::slice::from_raw_parts(program.instructions, program.length as usize) };
        let all = all.iter().map(|raw| Instruction(raw.code, raw.jt, raw.jf, raw.k)).collect();
        // SAFETY: the program is the library's, and nothing points to it any more.
        unsafe { (pcap.free_code)(&raw mut program) };
        Ok(all)
    } else {
        // SAFETY: the handle is open.
        let why = unsafe { (pcap.error)(handle) };
        // SAFETY: the text is the handle's, ends with a zero, and is copied before the handle is closed.
        let why = unsafe { CStr::from_ptr(why) }.to_string_lossy().into_owned();
        Err(syntax(&why))
    };
    // SAFETY: the handle is open and not used any more.
    unsafe { (pcap.close)(handle) };
    compiled
}

impl Pcap {
    /// The library stays loaded until the process ends, so that its functions stay where they are.
    fn load() -> Result<Self, FilterError> {
        let open = |name: &&CStr| {
            // SAFETY: the name ends with a zero; the library's constructors do nothing.
            NonNull::new(unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW) })
        };
        let library = LIBRARIES.iter().find_map(open).ok_or_else(last_error)?;
        let symbol = |name: &CStr| {
            // SAFETY: the library is loaded, the name ends with a zero.
            NonNull::new(unsafe { libc::dlsym(library.as_ptr(), name.as_ptr()) })
                .map(NonNull::as_ptr)
                .ok_or_else(last_error)
        };
        // SAFETY: the functions of pcap/pcap.h of these names have had these types since libpcap 0.8.
        let open_dead =
            unsafe { std::mem::transmute::<Symbol, OpenDead>(symbol(c"pcap_open_dead")?) };
        // SAFETY: as before.
        let compile = unsafe { std::mem::transmute::<Symbol, Compile>(symbol(c"pcap_compile")?) };
        // SAFETY: as before.
        let error = unsafe { std::mem::transmute::<Symbol, GetError>(symbol(c"pcap_geterr")?) };
        // SAFETY: as before.
        let free_code =
            unsafe { std::mem::transmute::<Symbol, FreeCode>(symbol(c"pcap_freecode")?) };
        // SAFETY: as before.
        let close = unsafe { std::mem::transmute::<Symbol, Close>(symbol(c"pcap_close")?) };
        Ok(Self { open_dead, compile, error, free_code, close })
    }
}

fn last_error() -> FilterError {
    // SAFETY: it takes nothing and gives a text that lives until the thread's next such call, or null.
    let text = NonNull::new(unsafe { libc::dlerror() });
    // SAFETY: the text ends with a zero and is copied at once.
    let text =
        text.map(|text| unsafe { CStr::from_ptr(text.as_ptr()) }.to_string_lossy().into_owned());
    FilterError::NoLibrary(text.unwrap_or_else(|| "it cannot be loaded".to_owned()))
}
