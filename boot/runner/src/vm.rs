//! A running QEMU: started, its serial line passed on, stopped in time, its end classified.

use core::fmt;
use core::time::Duration;
use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process};

use crate::cmdline::CommandLine;
use crate::host::{Doing, HostError};
use crate::image::{KernelImage, TooLittleMemory};
use crate::input::{Input, Typist};
use crate::iso::{self, MediumError};
use crate::machine::{Clock, Machine};
use crate::outcome::Outcome;
use crate::qemu_args::{ResetLog, qemu_args};
use crate::symbols::{BacktraceFilter, ElfSymbols};
use crate::tools;

/// How long QEMU may take to end after its output did, or after it was asked to.
const GRACE: Duration = Duration::from_secs(3);
const POLL: Duration = Duration::from_millis(5);

/// A boot to be made: which kernel, on what, told what, for how long.
#[derive(Clone, Debug)]
pub struct Boot {
    /// The kernel.
    pub image: KernelImage,
    /// The machine.
    pub machine: Machine,
    /// The kernel's command line.
    pub cmdline: CommandLine,
    /// When to stop the machine; never without.
    pub timeout: Option<Duration>,
}

/// A boot that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finished {
    /// How it ended.
    pub outcome: Outcome,
    /// What QEMU said on standard error.
    pub qemu_messages: String,
}

/// A boot that was made, with all of its serial output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// How it ended.
    pub finished: Finished,
    /// What the kernel printed, backtraces with names.
    pub serial: String,
}

/// Why a boot could not be made.
#[derive(Debug)]
pub enum RunError {
    /// The machine is too small for the kernel.
    Memory(TooLittleMemory),
    /// QEMU or other programs are missing, or there is no boot medium.
    Medium(MediumError),
    /// The host failed.
    Host(HostError),
}

impl Boot {
    /// Boots the machine, with its serial output going to `output` as it comes.
    ///
    /// # Errors
    /// When the kernel does not fit, QEMU cannot be started or `output` not be written; QEMU is
    /// gone in any case.
    pub fn run(&self, input: Input, output: &mut dyn Write) -> Result<Finished, RunError> {
        let machine = &self.machine;
        self.image.fits_into(machine.memory, machine.firmware)?;
        let qemu = tools::qemu().map_err(MediumError::from)?;
        let here = Path::new("a temporary folder");
        let folder = tempfile::tempdir().map_err(HostError::at(Doing::Create, here))?;
        let cmdline = match machine.clock {
            Clock::Host => self.cmdline.clone(),
            Clock::Instructions => self.cmdline.clone().with_counting(),
        };
        let medium = iso::medium(machine, &self.image, &cmdline, folder.path())?;
        let log = ResetLog(folder.path().join("resets.log"));

        let mut command = dies_with_us(&qemu);
        command.args(qemu_args(machine, &medium, &log));
        let mut vm = Vm::start(qemu, command, input)?;
        let end = vm.watch(&self.image, Deadline::after(self.timeout), output)?;
        let qemu_messages = vm.messages();

        let outcome = match end {
            End::Expired => Outcome::TimedOut,
            // An empty log is as good as none: it only ever adds a reason.
            End::Exited(status) => {
                let resets = fs::read(&log.0).unwrap_or_default();
                Outcome::classify(status, &String::from_utf8_lossy(&resets))
            }
        };
        Ok(Finished {
            outcome,
            qemu_messages,
        })
    }

    /// Boots the machine without input and keeps its serial output.
    ///
    /// # Errors
    /// When QEMU cannot be started.
    pub fn record(&self) -> Result<Recorded, RunError> {
        let mut serial = Vec::new();
        let finished = self.run(Input::Nothing, &mut serial)?;
        Ok(Recorded {
            finished,
            serial: String::from_utf8_lossy(&serial).into_owned(),
        })
    }
}

/// A command for `qemu` that the system kills when this thread is gone, however it went.
/// (The call behind it cannot be made between fork and exec in safe code; `setpriv` makes it.)
fn dies_with_us(qemu: &Path) -> Command {
    let Some(setpriv) = tools::program("setpriv") else {
        return Command::new(qemu);
    };
    let mut command = Command::new(setpriv);
    command.args(["--pdeathsig", "KILL", "--"]).arg(qemu);
    command
}

/// A point in time, or never.
#[derive(Clone, Copy)]
struct Deadline(Option<Instant>);

impl Deadline {
    fn after(limit: Option<Duration>) -> Self {
        Self(limit.and_then(|limit| Instant::now().checked_add(limit)))
    }

    fn has_passed(self) -> bool {
        self.0.is_some_and(|end| Instant::now() >= end)
    }

    /// The next piece of output; `Timeout` when it is too late for one.
    fn receive(self, pieces: &Receiver<Vec<u8>>) -> Result<Vec<u8>, RecvTimeoutError> {
        match self.0 {
            None => pieces.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(end) => pieces.recv_timeout(end.saturating_duration_since(Instant::now())),
        }
    }
}

enum End {
    Exited(ExitStatus),
    Expired,
}

/// A QEMU process. Dropping it ends the process.
struct Vm {
    program: PathBuf,
    child: Child,
    serial: Receiver<Vec<u8>>,
    messages: Option<JoinHandle<Vec<u8>>>,
    typist: Typist,
}

impl Vm {
    fn start(program: PathBuf, mut command: Command, input: Input) -> Result<Self, HostError> {
        command
            .stdin(input.stdio())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command
            .spawn()
            .map_err(HostError::at(Doing::Start, &program))?;

        // A few pieces of slack: a guest that prints faster than we write has to wait.
        let (sender, serial) = sync_channel(16);
        if let Some(mut stdout) = child.stdout.take() {
            thread::spawn(move || {
                let mut piece = [0; 4096];
                while let Ok(count @ 1..) = stdout.read(&mut piece) {
                    let bytes = piece.get(..count).unwrap_or_default().to_vec();
                    if sender.send(bytes).is_err() {
                        return;
                    }
                }
            });
        }
        let messages = child.stderr.take().map(|mut stderr| {
            thread::spawn(move || {
                let mut said = Vec::new();
                // What was read before an error is still what QEMU said.
                let _partial = stderr.read_to_end(&mut said);
                said
            })
        });
        let typist = Typist::start(input, child.stdin.take());
        Ok(Self {
            program,
            child,
            serial,
            messages,
            typist,
        })
    }

    /// Passes the serial output on until QEMU ends or `deadline` does.
    fn watch(
        &mut self,
        image: &KernelImage,
        deadline: Deadline,
        output: &mut dyn Write,
    ) -> Result<End, HostError> {
        let mut filter = BacktraceFilter::new(ElfSymbols::of(&image.elf));
        loop {
            match deadline.receive(&self.serial) {
                Ok(piece) => {
                    let shown = filter.push(&piece);
                    output
                        .write_all(&shown)
                        .and_then(|()| output.flush())
                        .map_err(HostError::at(Doing::Print, Path::new("standard output")))?;
                    self.typist.notice(&piece);
                }
                Err(RecvTimeoutError::Timeout) => {
                    self.stop();
                    return Ok(End::Expired);
                }
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        // Only a QEMU that is ending closes its output.
        let status = self.wait(Deadline::after(Some(GRACE)))?;
        Ok(status.map_or(End::Expired, End::Exited))
    }

    /// Waits for the end of the process; `None` when it does not come.
    fn wait(&mut self, deadline: Deadline) -> Result<Option<ExitStatus>, HostError> {
        loop {
            let ended = self.child.try_wait();
            if let Some(status) = ended.map_err(HostError::at(Doing::Talk, &self.program))? {
                return Ok(Some(status));
            }
            if deadline.has_passed() {
                return Ok(None);
            }
            thread::sleep(POLL);
        }
    }

    /// Asks QEMU to end, and ends it if it does not.
    fn stop(&mut self) {
        // Each step may find that QEMU is gone already, which is what is wanted.
        let _gone = kill_process(Pid::from_child(&self.child), Signal::TERM);
        if !matches!(self.wait(Deadline::after(Some(GRACE))), Ok(Some(_))) {
            let _gone = self.child.kill();
            let _reaped = self.child.wait();
        }
    }

    /// What QEMU said on standard error, once it has ended.
    fn messages(&mut self) -> String {
        self.stop();
        let said = self.messages.take().and_then(|thread| thread.join().ok());
        String::from_utf8_lossy(&said.unwrap_or_default()).into_owned()
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(Some(_))) {
            self.stop();
        }
    }
}

impl From<HostError> for RunError {
    fn from(error: HostError) -> Self {
        Self::Host(error)
    }
}

impl From<TooLittleMemory> for RunError {
    fn from(error: TooLittleMemory) -> Self {
        Self::Memory(error)
    }
}

impl From<MediumError> for RunError {
    fn from(error: MediumError) -> Self {
        Self::Medium(error)
    }
}

impl core::error::Error for RunError {}

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory(error) => error.fmt(f),
            Self::Medium(error) => error.fmt(f),
            Self::Host(error) => error.fmt(f),
        }
    }
}
