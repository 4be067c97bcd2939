//! The classic packet filter language (McCanne and Jacobson 1993), as `tcpdump -ddd` and libpcap write
//! it: a machine with an accumulator, an index, and sixteen words of memory that looks at a frame.
//!
//! A program comes from outside. It is checked once, as the kernel does it: jumps lead forwards and stay
//! inside, memory exists, no division by a constant zero, and the last instruction returns. So every
//! run ends, after at most as many steps as there are instructions. A load beyond the frame ends the
//! program with "no".

/// Instructions of one program; the kernel's own bound (`BPF_MAXINSNS`).
pub const INSTRUCTIONS_MAX: usize = 4_096;
const MEMORY_WORDS: usize = 16;

/// One instruction, as in linux/filter.h: operation, jumps if true and if false, constant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Instruction(pub u16, pub u8, pub u8, pub u32);

/// A program that was checked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Program(Vec<Instruction>);

/// What is wrong with a program.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadProgram {
    /// None, or too many.
    #[error("a filter has 1 to {INSTRUCTIONS_MAX} instructions, not {0}")]
    Length(usize),
    /// It cannot be run.
    #[error(
        "instruction {0} of the filter is none, jumps out of it, or uses memory that is not there"
    )]
    Instruction(usize),
    /// It would run out of its end.
    #[error("the filter does not end with an answer")]
    Endless,
}

/// What one instruction does.
enum Step {
    Next,
    Jump(u32),
    Return(u32),
}

#[derive(Default)]
struct Machine {
    a: u32,
    x: u32,
    memory: [u32; MEMORY_WORDS],
}

/// Classes and modes of linux/bpf_common.h.
mod code {
    pub(super) const LD: u16 = 0x00;
    pub(super) const LDX: u16 = 0x01;
    pub(super) const ST: u16 = 0x02;
    pub(super) const STX: u16 = 0x03;
    pub(super) const ALU: u16 = 0x04;
    pub(super) const JMP: u16 = 0x05;
    pub(super) const RET: u16 = 0x06;
    pub(super) const MISC: u16 = 0x07;
    /// The second operand is X rather than the constant.
    pub(super) const X: u16 = 0x08;
}

impl Program {
    /// Checks a program.
    pub fn new(instructions: Vec<Instruction>) -> Result<Self, BadProgram> {
        let length = instructions.len();
        if length == 0 || length > INSTRUCTIONS_MAX {
            return Err(BadProgram::Length(length));
        }
        for (at, instruction) in instructions.iter().enumerate() {
            if !instruction.is_sound(at, length) {
                return Err(BadProgram::Instruction(at));
            }
        }
        match instructions.last() {
            Some(last) if last.0 & 7 == code::RET => Ok(Self(instructions)),
            _ => Err(BadProgram::Endless),
        }
    }

    /// Whether the program accepts a frame.
    pub fn accepts(&self, frame: &[u8]) -> bool {
        let mut machine = Machine::default();
        let mut at = 0;
        while let Some(instruction) = self.0.get(at) {
            match machine.step(*instruction, frame) {
                Some(Step::Next) => at += 1,
                Some(Step::Jump(by)) => at += 1 + by as usize,
                Some(Step::Return(answer)) => return answer != 0,
                None => return false,
            }
        }
        false
    }
}

impl Instruction {
    fn is_sound(self, at: usize, length: usize) -> bool {
        let Self(op, jt, jf, k) = self;
        let inside = |by: u64| (at as u64 + 1).saturating_add(by) < length as u64;
        let memory = (k as usize) < MEMORY_WORDS;
        match op & 7 {
            code::LD => {
                matches!(op, 0x20 | 0x28 | 0x30 | 0x40 | 0x48 | 0x50 | 0x80 | 0x00)
                    || (op == 0x60 && memory)
            }
            code::LDX => matches!(op, 0x01 | 0x81 | 0xb1) || (op == 0x61 && memory),
            code::ST | code::STX => op <= 0x03 && memory,
            code::ALU => match op & 0xf0 {
                0x30 | 0x90 if op & code::X == 0 => k != 0,
                operation => operation <= 0xa0,
            },
            code::JMP if op == 0x05 => inside(u64::from(k)),
            code::JMP => {
                matches!(op & 0xf0, 0x10 | 0x20 | 0x30 | 0x40)
                    && inside(jt.into())
                    && inside(jf.into())
            }
            code::RET => matches!(op, 0x06 | 0x16),
            _ => matches!(op, 0x07 | 0x87),
        }
    }
}

impl Machine {
    /// `None`: a byte that is not there, or a division by zero.
    fn step(&mut self, Instruction(op, jt, jf, k): Instruction, frame: &[u8]) -> Option<Step> {
        match op & 7 {
            code::LD => self.a = self.loaded(op, k, frame)?,
            code::LDX => {
                self.x = match op {
                    0x81 => frame.len() as u32,
                    0x61 => *self.memory.get(k as usize)?,
                    // Four times the low half of a byte: an IPv4 header's length.
                    0xb1 => 4 * (read(frame, k, 0, 1)? & 0xf),
                    _ => k,
                }
            }
            code::ST => *self.memory.get_mut(k as usize)? = self.a,
            code::STX => *self.memory.get_mut(k as usize)? = self.x,
            code::ALU => self.a = self.calculated(op, k)?,
            code::JMP if op == 0x05 => return Some(Step::Jump(k)),
            code::JMP => {
                let other = self.operand(op, k);
                let is = match op & 0xf0 {
                    0x10 => self.a == other,
                    0x20 => self.a > other,
                    0x30 => self.a >= other,
                    _ => self.a & other != 0,
                };
                return Some(Step::Jump(u32::from(if is { jt } else { jf })));
            }
            code::RET => return Some(Step::Return(if op == 0x16 { self.a } else { k })),
            code::MISC if op == 0x07 => self.x = self.a,
            _ => self.a = self.x,
        }
        Some(Step::Next)
    }

    fn operand(&self, op: u16, k: u32) -> u32 {
        if op & code::X != 0 { self.x } else { k }
    }

    fn loaded(&self, op: u16, k: u32, frame: &[u8]) -> Option<u32> {
        match op {
            0x20 => read(frame, k, 0, 4),
            0x28 => read(frame, k, 0, 2),
            0x30 => read(frame, k, 0, 1),
            0x40 => read(frame, k, self.x, 4),
            0x48 => read(frame, k, self.x, 2),
            0x50 => read(frame, k, self.x, 1),
            0x60 => self.memory.get(k as usize).copied(),
            0x80 => Some(frame.len() as u32),
            _ => Some(k),
        }
    }

    fn calculated(&self, op: u16, k: u32) -> Option<u32> {
        let (a, b) = (self.a, self.operand(op, k));
        Some(match op & 0xf0 {
            0x00 => a.wrapping_add(b),
            0x10 => a.wrapping_sub(b),
            0x20 => a.wrapping_mul(b),
            0x30 => a.checked_div(b)?,
            0x40 => a | b,
            0x50 => a & b,
            0x60 => a.checked_shl(b).unwrap_or(0),
            0x70 => a.checked_shr(b).unwrap_or(0),
            0x80 => a.wrapping_neg(),
            0x90 => a.checked_rem(b)?,
            _ => a ^ b,
        })
    }
}

fn read(frame: &[u8], base: u32, index: u32, length: usize) -> Option<u32> {
    let start = base.checked_add(index)? as usize;
    let bytes = frame.get(start..start.checked_add(length)?)?;
    Some(bytes.iter().fold(0, |number, byte| number << 8 | u32::from(*byte)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// `tcpdump -ddd 'tcp dst port 80'` on Ethernet.
    fn to_port_80() -> Vec<Instruction> {
        [
            (40, 0, 0, 12),
            (21, 0, 4, 0x86dd),
            (48, 0, 0, 20),
            (21, 0, 11, 6),
            (40, 0, 0, 56),
            (21, 8, 9, 80),
            (21, 0, 8, 0x0800),
            (48, 0, 0, 23),
            (21, 0, 6, 6),
            (40, 0, 0, 20),
            (69, 4, 0, 0x1fff),
            (177, 0, 0, 14),
            (72, 0, 0, 16),
            (21, 0, 1, 80),
            (6, 0, 0, 262_144),
            (6, 0, 0, 0),
        ]
        .map(|(op, jt, jf, k)| Instruction(op, jt, jf, k))
        .to_vec()
    }

    fn tcp(v6: bool, port: u16) -> Vec<u8> {
        let mut frame = vec![0; 14];
        if v6 {
            frame[12..].copy_from_slice(&[0x86, 0xdd]);
            frame.extend([0x60, 0, 0, 0, 0, 20, 6, 64]);
            frame.extend([0; 32]);
        } else {
            frame[12..].copy_from_slice(&[8, 0]);
            // With an option, so that the length matters.
            frame.extend([0x46, 0, 0, 44, 0, 0, 0, 0, 64, 6, 0, 0]);
            frame.extend([0; 12]);
        }
        frame.extend(4_000_u16.to_be_bytes());
        frame.extend(port.to_be_bytes());
        frame.extend([0; 16]);
        frame
    }

    #[test]
    fn a_program_of_tcpdump_takes_what_tcpdump_would_take() {
        let program = Program::new(to_port_80()).unwrap();
        for v6 in [false, true] {
            assert!(program.accepts(&tcp(v6, 80)), "v6: {v6}");
            assert!(!program.accepts(&tcp(v6, 81)), "v6: {v6}");
        }
        assert!(!program.accepts(&[0; 13]), "a load beyond the frame");
    }

    #[test]
    fn a_program_that_could_run_wild_is_refused() {
        let end = Instruction(6, 0, 0, 1);
        let bad = |instruction| Program::new(vec![instruction, end]);
        assert_eq!(Program::new(Vec::new()), Err(BadProgram::Length(0)));
        assert_eq!(bad(Instruction(5, 0, 0, 1)), Err(BadProgram::Instruction(0)), "jumps out");
        assert_eq!(bad(Instruction(5, 0, 0, u32::MAX)), Err(BadProgram::Instruction(0)));
        assert_eq!(bad(Instruction(0x15, 1, 0, 1)), Err(BadProgram::Instruction(0)));
        assert_eq!(bad(Instruction(0x02, 0, 0, 16)), Err(BadProgram::Instruction(0)), "memory");
        assert_eq!(bad(Instruction(0x34, 0, 0, 0)), Err(BadProgram::Instruction(0)), "x / 0");
        assert_eq!(bad(Instruction(0xffff, 0, 0, 0)), Err(BadProgram::Instruction(0)));
        assert_eq!(Program::new(vec![Instruction(0, 0, 0, 1)]), Err(BadProgram::Endless));
    }

    proptest! {
        #[test]
        fn whatever_is_accepted_as_a_program_ends(
            code in prop::collection::vec((any::<u16>(), any::<u8>(), any::<u8>(), 0..64_u32), 1..40),
            frame in prop::collection::vec(any::<u8>(), 0..80),
        ) {
            let code = code.into_iter().map(|(op, jt, jf, k)| Instruction(op & 0xbf, jt % 4, jf % 4, k));
            let code = code.chain([Instruction(6, 0, 0, 1)]).collect::<Vec<_>>();
            let sound: Vec<_> = (0..code.len()).filter(|at| code[*at].is_sound(*at, code.len())).map(|at| code[at]).collect();
            // Each alone, since most random ones are refused together.
            for instruction in sound {
                if let Ok(program) = Program::new(vec![instruction, Instruction(6, 0, 0, 1)]) {
                    let _ = program.accepts(&frame);
                }
            }
            if let Ok(program) = Program::new(code) {
                let _ = program.accepts(&frame);
            }
        }
    }
}
