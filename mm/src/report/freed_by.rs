//! Who gave a page back.
#![forbid(unsafe_code)]

use core::fmt::{self, Write};

use crate::addr::VirtAddr;
use crate::platform::CpuId;

/// How many return addresses are kept of each free.
pub const CALLERS: usize = 7;

/// Who gave a page back last, where that is kept (`page_owner=on`), as far as
/// [`Platform::who_calls`](crate::platform::Platform::who_calls) says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FreedBy {
    /// On which CPU.
    pub cpu: CpuId,
    /// Which task; 0: nobody knows. Of its number, 46 bits are kept.
    pub task: u64,
    /// Return addresses, the latest call first; 0 behind the last.
    pub callers: [VirtAddr; CALLERS],
}

/// In the first word of what is kept: it says something, …
const IS_KNOWN: u64 = 1 << 63;
/// … where the CPU is, and its bits; the task is below, and a bit is between them for whoever keeps it.
const CPU_SHIFT: u32 = 46;
const CPU_MASK: u64 = 0xffff;
const TASK_MASK: u64 = (1 << CPU_SHIFT) - 1;

impl FreedBy {
    /// CPU and task as a word; bit 62 is left to whoever keeps it.
    #[must_use]
    pub fn to_word(&self) -> u64 {
        let cpu = (u64::from(self.cpu.0) & CPU_MASK) << CPU_SHIFT;
        IS_KNOWN | cpu | (self.task & TASK_MASK)
    }

    /// From such a word, and return addresses; nothing if the word is of nobody.
    #[must_use]
    pub fn from_words(who: u64, callers: [VirtAddr; CALLERS]) -> Option<Self> {
        let cpu = u32::try_from(who >> CPU_SHIFT & CPU_MASK).ok()?;
        (who & IS_KNOWN != 0).then_some(Self {
            cpu: CpuId(cpu),
            task: who & TASK_MASK,
            callers,
        })
    }

    /// The return addresses that there are.
    pub fn callers(&self) -> impl Iterator<Item = VirtAddr> {
        let all = self.callers.into_iter();
        all.take_while(|at| *at != VirtAddr::default())
    }

    /// Writes the return addresses, each on a line of a backtrace: `  #0 0xffffffff80212345`.
    ///
    /// # Errors
    /// `out`'s own.
    pub fn write_callers(&self, out: &mut dyn Write) -> fmt::Result {
        for (number, at) in self.callers().enumerate() {
            writeln!(out, "  #{number} {:#018x}", at.as_u64())?;
        }
        Ok(())
    }
}

/// In words, without the callers: `by task 5 on CPU 0`.
impl fmt::Display for FreedBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.task {
            0 => write!(f, "on CPU {}", self.cpu.0),
            task => write!(f, "by task {task} on CPU {}", self.cpu.0),
        }
    }
}
