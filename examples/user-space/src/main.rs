//! Processes at EL0 on the four CPUs of QEMU's `virt` machine, each with its own tables in TTBR0
//! and its own ASID. The kernel is in the upper half. Every access that should fault does, every
//! other one finds the data of its process.

#![no_std]
#![no_main]

mod costs;
mod crew;
mod frames;
mod lock;
mod machine;
mod process;
mod user;

use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use linmap_live::SpaceError;
use linmap_vmsa::Va;

use crew::{all, wait};
use frames::Frames;
use machine::{OFFSET, end, fail, linked, rounds, say};
use process::{CPUS, Cpu, DATA, DATA_LEN, PAGE, Process, rollovers};
use user::{Access, Do, Fault};

/// Pages that come and go.
const SCRATCH: Va = Va(0x7f_c000_0000);
/// Where nothing is ever.
const HOLE: Va = Va(0x20_0000);

/// Entered on each CPU, with the MMU on.
#[unsafe(no_mangle)]
extern "C" fn kernel_main(number: usize) -> ! {
    let mut cpu = Cpu::new(number);
    if number > 0 {
        crew::serve(&mut cpu);
    }
    if let Err(error) = costs::measure(&mut cpu) {
        fail(format_args!("{error}"));
    }
    crew::start();
    for round in 0..rounds() {
        let done = refused(&mut cpu)
            .and_then(|()| copy_on_write(&mut cpu))
            .and_then(|()| reuse(&mut cpu))
            .and_then(|()| rollover(&mut cpu, round));
        if let Err(error) = done {
            fail(format_args!("{error}"));
        }
        assert_eq!(Frames::used(), 0, "frames that nobody holds");
    }
    end(0)
}

/// What a process may not do.
fn refused(cpu: &mut Cpu) -> Result<(), SpaceError> {
    let process = Process::new()?;
    let kernel = Va(linked::text().start.0 + OFFSET);
    for (what, at, access, mapped) in [
        (Do::Fill(1, 8), user::CODE, Access::Write, true),
        (Do::Jump, DATA, Access::Execute, true),
        (Do::Check(0, 8), HOLE, Access::Read, false),
        (Do::Fill(0, 8), Va(DATA.0 + DATA_LEN), Access::Write, false),
        (Do::Check(0, 8), kernel, Access::Read, true),
        (Do::Jump, kernel, Access::Execute, true),
    ] {
        assert_eq!(cpu.run(&process, what, at), Err(Fault { at, access, mapped }));
    }
    process.end(cpu)?;
    say(format_args!("a process can't write its code, execute its data, or reach the kernel"));
    Ok(())
}

/// A process forks. The child writes on one CPU while another reads for it, and two for the parent.
fn copy_on_write(cpu: &mut Cpu) -> Result<(), SpaceError> {
    let parent = Process::new()?;
    assert_eq!(cpu.run(&parent, Do::Fill(1, DATA_LEN), DATA), Ok(1));
    let child = parent.fork(cpu)?;
    let before = Frames::used();
    let done = AtomicBool::new(false);
    all(cpu, &|cpu| match cpu.number {
        1 => {
            assert_eq!(cpu.run(&child, Do::Fill(2, DATA_LEN), DATA), Ok(2));
            done.store(true, Ordering::Release);
        }
        2 => {
            // What the other CPU has written, or not yet.
            wait_on(&done, || assert!(matches!(cpu.run(&child, Do::Check(1, DATA_LEN), DATA), Ok(1 | 2))));
            assert_eq!(cpu.run(&child, Do::Check(2, DATA_LEN), DATA), Ok(2));
        }
        _ => wait_on(&done, || assert_eq!(cpu.run(&parent, Do::Check(1, DATA_LEN), DATA), Ok(1))),
    });
    let pages = (DATA_LEN / PAGE) as usize;
    assert_eq!(Frames::used() - before, pages, "copied");
    // The parent has its pages alone now.
    assert_eq!(cpu.run(&parent, Do::Fill(3, DATA_LEN), DATA), Ok(3));
    assert_eq!(cpu.run(&child, Do::Check(2, DATA_LEN), DATA), Ok(2));
    assert_eq!(Frames::used() - before, pages, "not copied again");
    parent.end(cpu)?;
    child.end(cpu)?;
    say(format_args!("after a fork {pages} pages were copied when they were written"));
    Ok(())
}

/// A page of one process is unmapped while two CPUs read it, and its frame goes to another process.
fn reuse(cpu: &mut Cpu) -> Result<(), SpaceError> {
    const TIMES: usize = 50;
    let [first, second] = [Process::new()?, Process::new()?];
    let gone = Err(Fault { at: SCRATCH, access: Access::Read, mapped: false });
    for _ in 0..TIMES {
        first.map(SCRATCH)?;
        assert_eq!(cpu.run(&first, Do::Fill(1, PAGE), SCRATCH), Ok(1));
        let readers = AtomicUsize::new(0);
        let done = AtomicBool::new(false);
        all(cpu, &|cpu| match cpu.number {
            0 => {
                wait(|| readers.load(Ordering::Acquire) == CPUS - 1);
                let frame = first.unmap(SCRATCH, cpu);
                assert_eq!(cpu.run(&first, Do::Check(1, 8), SCRATCH), gone);
                assert_eq!(second.map(SCRATCH), Ok(()));
                assert_eq!(cpu.run(&second, Do::Fill(2, PAGE), SCRATCH), Ok(2));
                assert_eq!(frame, Ok(second.frame(SCRATCH)), "the same frame");
                done.store(true, Ordering::Release);
            }
            _ => {
                assert_eq!(cpu.run(&first, Do::Check(1, PAGE), SCRATCH), Ok(1));
                readers.fetch_add(1, Ordering::Release);
                wait_on(&done, || {
                    let read = cpu.run(&first, Do::Check(1, 8), SCRATCH);
                    assert!(read == Ok(1) || read == gone, "{read:?}");
                });
                assert_eq!(cpu.run(&first, Do::Check(1, 8), SCRATCH), gone);
                assert_eq!(cpu.run(&second, Do::Check(2, PAGE), SCRATCH), Ok(2));
            }
        });
        second.unmap(SCRATCH, cpu)?;
    }
    first.end(cpu)?;
    second.end(cpu)?;
    say(format_args!("{TIMES} frames went from one process to another while others read"));
    Ok(())
}

/// More processes than ASIDs, on all CPUs at once.
fn rollover(cpu: &mut Cpu, round: u32) -> Result<(), SpaceError> {
    const TIMES: usize = 400;
    let mut processes = [const { None }; 12];
    for (number, process) in processes.iter_mut().enumerate() {
        let process = process.insert(Process::new()?);
        assert!(cpu.run(process, Do::Fill(number as u64, DATA_LEN), DATA).is_ok());
    }
    let before = rollovers();
    all(cpu, &|cpu| {
        let scratch = Va(SCRATCH.0 + cpu.number as u64 * PAGE);
        let mut random = u64::from(round) << 8 | cpu.number as u64;
        for _ in 0..TIMES {
            random = random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            let number = (random >> 33) as usize % processes.len();
            let (Some(process), value) = (&processes[number], number as u64) else { continue };
            assert_eq!(cpu.run(process, Do::Check(value, DATA_LEN), DATA), Ok(value));
            if random >> 60 == 0 {
                // Pages of a process change while other CPUs run it.
                assert_eq!(process.map(scratch), Ok(()));
                assert_eq!(cpu.run(process, Do::Fill(value, PAGE), scratch), Ok(value));
                assert!(process.unmap(scratch, cpu).is_ok());
                let gone = Fault { at: scratch, access: Access::Read, mapped: false };
                assert_eq!(cpu.run(process, Do::Check(value, 8), scratch), Err(gone));
            }
        }
    });
    let times = rollovers() - before;
    assert!(times > 10, "{times} rollovers");
    let many = processes.len();
    processes.into_iter().flatten().try_for_each(|process| process.end(cpu))?;
    say(format_args!("{many} processes shared 7 ASIDs: more than 10 rollovers"));
    Ok(())
}

/// Does something until another CPU is done.
fn wait_on(done: &AtomicBool, mut work: impl FnMut()) {
    while !done.load(Ordering::Acquire) {
        work();
    }
}
