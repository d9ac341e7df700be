//! The protocol with threads for CPUs.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use linmap_park::{Cpus, Rendezvous, RootSwitch};

const CPUS: usize = 5;
/// The root of the edits.
const SURGERY: u64 = 0x1000;

/// How long a test waits for something that has to happen.
const LONG: Duration = Duration::from_secs(60);

fn wait_for(what: &str, patience: Duration, mut done: impl FnMut() -> bool) {
    let started = Instant::now();
    while !done() {
        assert!(started.elapsed() < patience, "{what}");
        thread::yield_now();
    }
}

/// A switch that counts the CPUs which are not on the live root.
#[derive(Default)]
struct Counting {
    waiting: AtomicUsize,
    waits: AtomicUsize,
    /// The root of the editor, 0 for the live one.
    root: AtomicU64,
}

impl Counting {
    const fn new() -> Self {
        Self { waiting: AtomicUsize::new(0), waits: AtomicUsize::new(0), root: AtomicU64::new(0) }
    }
}

// SAFETY: the threads walk no root.
unsafe impl RootSwitch for Counting {
    unsafe fn wait(&self, word: &AtomicU64, own: &AtomicU64, value: u64) {
        self.waits.fetch_add(1, Ordering::SeqCst);
        self.waiting.fetch_add(1, Ordering::SeqCst);
        own.store(value, Ordering::Release);
        wait_for("a parked CPU is let go", LONG, || word.load(Ordering::Acquire) != value);
        self.waiting.fetch_sub(1, Ordering::SeqCst);
    }

    unsafe fn go_to(&self, ttbr1: u64) {
        self.root.store(ttbr1, Ordering::SeqCst);
    }

    unsafe fn go_to_live(&self) {
        self.root.store(0, Ordering::SeqCst);
    }

    fn wake(&self) {}
}

type Parking = Rendezvous<Counting, CPUS>;

/// What a CPU does when it is interrupted.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Manner {
    Answers,
    /// It takes interrupts once the machine unmasks them.
    Late,
}

/// CPUs 1 to 4, each a thread, seen from CPU 0.
struct Machine {
    parking: Parking,
    pending: [AtomicBool; CPUS],
    /// How often each CPU was back from an interrupt.
    returned: [AtomicUsize; CPUS],
    late_may_answer: AtomicBool,
    ended: AtomicBool,
    online: Vec<usize>,
    in_transit: Vec<usize>,
    /// How many CPUs park before the editor's patience ends; `None` if all will.
    punctual: Option<usize>,
    ticks: AtomicU64,
}

impl Machine {
    fn new(online: &[usize], in_transit: &[usize]) -> Self {
        Self {
            parking: Rendezvous::new(Counting::new()),
            pending: Default::default(),
            returned: Default::default(),
            late_may_answer: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            online: online.to_vec(),
            in_transit: in_transit.to_vec(),
            punctual: None,
            ticks: AtomicU64::new(1000),
        }
    }

    /// Runs `boot_cpu` while the other CPUs run, those in `late` late.
    fn run<R>(&self, late: &[usize], boot_cpu: impl FnOnce() -> R) -> R {
        thread::scope(|scope| {
            for &cpu in &self.online {
                let manner = if late.contains(&cpu) { Manner::Late } else { Manner::Answers };
                scope.spawn(move || self.other_cpu(cpu, manner));
            }
            // The others end, whatever a failed assertion does.
            let _end = End(&self.ended);
            boot_cpu()
        })
    }

    fn other_cpu(&self, cpu: usize, manner: Manner) {
        while !self.ended.load(Ordering::Acquire) {
            let masked = manner == Manner::Late && !self.late_may_answer.load(Ordering::Acquire);
            if !masked && self.pending[cpu].swap(false, Ordering::Acquire) {
                // SAFETY: a thread walks no root, and each has its own number.
                unsafe { self.parking.answer(cpu) };
                self.returned[cpu].fetch_add(1, Ordering::Release);
            }
            thread::yield_now();
        }
    }

    fn edit<R>(&self, edit: impl FnOnce() -> R) -> Result<R, linmap::ParkError> {
        // SAFETY: `Machine` has all CPUs, and only the test's own thread edits.
        unsafe { self.parking.edit_parked(self, SURGERY, edit) }.map(|(result, _)| result)
    }

    fn have_returned(&self, cpus: &[usize], times: usize) {
        wait_for("all return", LONG, || {
            cpus.iter().all(|&cpu| self.returned[cpu].load(Ordering::Acquire) >= times)
        });
    }
}

struct End<'m>(&'m AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

impl Cpus for Machine {
    fn others(&self) -> impl Iterator<Item = usize> + Clone {
        self.online.iter().copied()
    }

    fn in_transit(&self) -> impl Iterator<Item = usize> {
        self.in_transit.iter().copied()
    }

    fn interrupt(&self, cpus: impl Iterator<Item = usize>) {
        cpus.for_each(|cpu| self.pending[cpu].store(true, Ordering::Release));
    }

    fn wait_until(&self, mut parked: impl FnMut() -> bool) -> bool {
        let waiting = || self.parking.switch().waiting.load(Ordering::SeqCst);
        wait_for("those park that should", LONG, || parked() || self.punctual == Some(waiting()));
        parked()
    }

    fn ticks(&self) -> u64 {
        self.ticks.fetch_add(1, Ordering::Relaxed)
    }
}

#[test]
fn an_edit_runs_while_all_others_are_parked_and_the_editor_is_on_its_root() {
    let machine = Machine::new(&[1, 2, 3, 4], &[]);
    machine.run(&[], || {
        for round in 1..=200 {
            let switch = machine.parking.switch();
            let seen =
                machine.edit(|| (switch.waiting.load(Ordering::SeqCst), switch.root.load(Ordering::SeqCst)));
            assert_eq!(seen, Ok((4, SURGERY)), "round {round}");
            assert_eq!(switch.root.load(Ordering::SeqCst), 0);
            machine.have_returned(&[1, 2, 3, 4], round);
        }
    });
    assert_eq!(machine.parking.switch().waits.load(Ordering::SeqCst), 800);
}

#[test]
fn no_cpu_is_still_parked_for_the_last_edit_when_the_next_one_runs() {
    let machine = Machine::new(&[1, 2, 3, 4], &[]);
    machine.run(&[], || {
        // Without a wait in between: a CPU may still be on its way back.
        let runs = (0..500).filter(|_| {
            let waiting = &machine.parking.switch().waiting;
            machine.edit(|| assert!(waiting.load(Ordering::SeqCst) >= 4)).is_ok()
        });
        assert_eq!(runs.count(), 500);
    });
}

#[test]
fn the_cpu_that_does_not_park_is_named_and_all_others_return() {
    let machine = Machine { punctual: Some(3), ..Machine::new(&[1, 2, 3, 4], &[]) };
    machine.run(&[3], || {
        let error = machine.edit(|| unreachable!("CPU 3 runs")).unwrap_err();
        assert_eq!(error.cpu, 3);
        assert!(error.ticks > 0);
        machine.have_returned(&[1, 2, 4], 1);
        assert_eq!(machine.parking.switch().waiting.load(Ordering::SeqCst), 0);
        assert_eq!(machine.parking.waited(), 0, "there was no rendezvous");
    });
}

#[test]
fn a_cpu_that_comes_late_finds_the_request_gone() {
    let mut machine = Machine { punctual: Some(1), ..Machine::new(&[1, 2], &[]) };
    machine.run(&[2], || {
        machine.edit(|| unreachable!("CPU 2 runs")).unwrap_err();
        machine.have_returned(&[1], 1);
        machine.late_may_answer.store(true, Ordering::Release);
        machine.have_returned(&[2], 1);
        assert_eq!(machine.parking.switch().waits.load(Ordering::SeqCst), 1, "CPU 1 alone parked");
    });
    // It parks for the next request as any other.
    machine.punctual = None;
    machine.ended.store(false, Ordering::Release);
    machine.run(&[2], || {
        assert_eq!(machine.edit(|| 7), Ok(7));
        machine.have_returned(&[1, 2], 2);
    });
}

#[test]
fn a_cpu_that_left_for_good_is_not_waited_for() {
    let machine = Machine::new(&[1], &[2, 3]);
    machine.run(&[], || {
        machine.parking.has_left(2);
        let error = machine.edit(|| unreachable!("CPU 3 may be anywhere")).unwrap_err();
        assert_eq!((error.cpu, error.ticks), (3, 0));
        assert_eq!(machine.parking.switch().waits.load(Ordering::SeqCst), 0, "no CPU was asked");
        machine.parking.has_left(3);
        assert_eq!(machine.edit(|| 7), Ok(7));
        // It is started again.
        machine.parking.expect(2);
        assert_eq!(machine.edit(|| 7).unwrap_err().cpu, 2);
    });
}

#[test]
fn a_single_cpu_waits_for_nobody() {
    let machine = Machine::new(&[], &[]);
    assert_eq!(machine.edit(|| 7), Ok(7));
    assert_eq!(machine.parking.switch().waits.load(Ordering::SeqCst), 0);
}

/// A kernel whose editor gives up because another CPU panicked.
struct Panicking<'m>(&'m Machine);

impl Cpus for Panicking<'_> {
    fn others(&self) -> impl Iterator<Item = usize> + Clone {
        self.0.others()
    }

    fn in_transit(&self) -> impl Iterator<Item = usize> {
        self.0.in_transit()
    }

    fn interrupt(&self, cpus: impl Iterator<Item = usize>) {
        self.0.interrupt(cpus);
    }

    fn wait_until(&self, mut parked: impl FnMut() -> bool) -> bool {
        wait_for("CPU 1 parks", LONG, || {
            let _ = parked();
            self.0.parking.switch().waiting.load(Ordering::SeqCst) == 1
        });
        self.0.parking.abandon();
        self.0.have_returned(&[1], 1);
        false
    }

    fn ticks(&self) -> u64 {
        self.0.ticks()
    }
}

#[test]
fn a_request_is_taken_back_when_the_kernel_stops() {
    let machine = Machine::new(&[1, 2], &[]);
    machine.run(&[2], || {
        // SAFETY: as in `Machine::edit`.
        let result = unsafe {
            machine.parking.edit_parked(&Panicking(&machine), SURGERY, || unreachable!("CPU 2 runs"))
        };
        assert_eq!(result.unwrap_err().cpu, 2);
        machine.late_may_answer.store(true, Ordering::Release);
        machine.have_returned(&[2], 1);
        assert_eq!(machine.edit(|| 7), Ok(7));
    });
}

#[test]
fn nobody_is_let_go_while_the_map_is_edited() {
    let machine = Machine::new(&[1, 2], &[]);
    machine.run(&[], || {
        let waiting = &machine.parking.switch().waiting;
        let edited = machine.edit(|| {
            machine.parking.abandon();
            thread::sleep(Duration::from_millis(20));
            waiting.load(Ordering::SeqCst)
        });
        assert_eq!(edited, Ok(2));
    });
}

#[test]
fn the_pause_and_the_wait_are_counted_in_the_kernels_ticks() {
    let machine = Machine::new(&[], &[]);
    // SAFETY: as in `Machine::edit`.
    let (_, pause) = unsafe { machine.parking.edit_parked(&machine, SURGERY, || machine.ticks()) }.unwrap();
    assert!(machine.parking.waited() > 0 && pause.ticks > machine.parking.waited());
}

#[test]
fn the_words_are_pages_of_their_own() {
    static PARKING: Parking = Rendezvous::new(Counting::new());
    assert!(PARKING.address().is_multiple_of(4096));
    assert_eq!(size_of_val(&PARKING), 4096);
    assert_eq!(align_of_val(&PARKING), 4096);
}
