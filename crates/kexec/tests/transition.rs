//! Transitional tables: they map all of memory and the code, or none are built and every frame is
//! freed.

use std::collections::BTreeSet;

use linmap_kexec::{Transition, TransitionError};
use linmap_memblock::Memblock;
use linmap_table::{FrameSource, Mapping, Mappings, OffsetWindow, OutOfFrames, ReachableFrames, Walk};
use linmap_vmsa::{Attributes, Geometry, Level, Pa, PaRange, Va};
use proptest::prelude::*;

const GEOMETRY: Geometry = Geometry::K4_48;
/// Where the kernel's half begins.
const BASE: Va = Va(0xffff_0000_0000_0000);
const PAGE: u64 = 0x1000;
const MIB: u64 = 0x10_0000;
const GIB: u64 = 0x4000_0000;
/// Where the frames of the tables are said to be.
const FRAMES_AT: u64 = 0x100_0000;
/// How many there are.
const FRAMES: u64 = 64;

/// Host memory that stands for frames, `left` of which can still be allocated.
struct Arena {
    memory: Vec<u64>,
    free: BTreeSet<u64>,
    left: usize,
}

impl Arena {
    fn new() -> Self {
        let memory = vec![0xdead_beef_dead_beef; (FRAMES * PAGE / 8) as usize];
        Self { memory, free: (0..FRAMES).map(|nth| FRAMES_AT + nth * PAGE).collect(), left: 0 }
    }

    fn window(&mut self) -> OffsetWindow {
        let address = self.memory.as_mut_ptr().expose_provenance() as u64;
        // SAFETY: every frame that the arena hands out lies in `memory` at this offset; that lives
        // as long as the arena, and is touched in no other way.
        unsafe { OffsetWindow::new(address.wrapping_sub(FRAMES_AT)) }
    }
}

// SAFETY: frames leave the set when they are handed out and come back when they are freed; all are
// pages from `FRAMES_AT`.
unsafe impl FrameSource for Arena {
    fn alloc(&mut self) -> Result<Pa, OutOfFrames> {
        let none = OutOfFrames { wanted: PAGE, largest_free: 0 };
        self.left = self.left.checked_sub(1).ok_or(none)?;
        self.free.pop_last().map(Pa).ok_or(none)
    }

    unsafe fn free(&mut self, frame: Pa) {
        assert!(self.free.insert(frame.0), "frame {frame} was freed twice");
    }
}

fn range(start: u64, len: u64) -> PaRange {
    PaRange::new(Pa(start), Pa(start + len))
}

fn memblock(memory: &[PaRange], no_map: &[PaRange]) -> Memblock<64> {
    let mut memblock = Memblock::new();
    memory.iter().for_each(|range| memblock.add(*range).unwrap());
    no_map.iter().for_each(|range| memblock.mark_no_map(*range).unwrap());
    memblock
}

/// The address of `pa` in the linear map.
fn linear(memstart: Pa, pa: Pa) -> Va {
    Va(BASE.0 + (pa.0 - memstart.0))
}

/// Builds with 0, 1, 2 ... frames until that is enough, checks what then is there, and says how
/// many were too few.
fn exhaust(memblock: &Memblock<64>, code: Pa) -> usize {
    let memory: Vec<PaRange> = memblock.mappable(PAGE).collect();
    let whole = PaRange::new(memory[0].start, memory[memory.len() - 1].end);
    let memstart = Pa(whole.start.0 & !(GIB - 1));
    let mappings: Vec<Mapping> =
        memory.iter().map(|range| Transition::mapping(*range, linear(memstart, range.start))).collect();
    let mappings = Mappings::new(GEOMETRY, &mappings).unwrap();
    let bits = (u64::BITS - (code.0 + PAGE - 1).leading_zeros()).max(25) as u8;
    let code_geometry = Geometry::new(GEOMETRY.granule(), bits, GEOMETRY.pa_bits()).unwrap();
    let mut arena = Arena::new();
    let mut window = arena.window();
    for frames in 0.. {
        arena.left = frames;
        let built =
            Transition::build(&mappings, code, code_geometry, &mut reachable(&mut window, &mut arena));
        let both = match built {
            Ok(both) => both,
            Err(TransitionError::OutOfFrames(_)) => {
                assert_eq!(arena.free.len() as u64, FRAMES, "{frames} frames, and some are lost");
                continue;
            }
            Err(error) => panic!("{error}"),
        };
        check(memstart, memblock, &memory, code, &both, &mut window);
        let tables = both.linear.built().tables + both.code.built().tables;
        assert_eq!(tables, frames as u64, "every frame that was asked for is a table");
        both.linear.release(&mut reachable(&mut window, &mut arena));
        both.code.release(&mut reachable(&mut window, &mut arena));
        assert_eq!(arena.free.len() as u64, FRAMES);
        return frames;
    }
    unreachable!("some number of frames is enough");
}

fn reachable<'r>(
    window: &'r mut OffsetWindow,
    arena: &'r mut Arena,
) -> ReachableFrames<'r, OffsetWindow, Arena> {
    // SAFETY: the window is the arena's.
    unsafe { ReachableFrames::new(window, arena) }
}

/// Walks in the arena.
fn walk(geometry: Geometry, root: Pa, va: Va, window: &mut OffsetWindow) -> Walk {
    // SAFETY: all trees of the test lie in the arena, which the window reaches.
    unsafe { linmap_table::walk(geometry, root, va, window) }
}

fn check(
    memstart: Pa,
    memblock: &Memblock<64>,
    memory: &[PaRange],
    code: Pa,
    both: &Transition,
    window: &mut OffsetWindow,
) {
    let geometry = GEOMETRY;
    // The edges, beside them, and pages between.
    let at = |range: &PaRange| {
        let (start, end) = (range.start.0, range.end.0);
        let inside = (1..8).map(move |part| (start + (end - start) / 8 * part) & !(PAGE - 1));
        [start.wrapping_sub(PAGE), start, end - PAGE, end].into_iter().chain(inside)
    };
    for pa in memory.iter().flat_map(at) {
        let mapped = memory.iter().any(|range| range.contains(Pa(pa)));
        if !mapped && pa < memstart.0 {
            continue;
        }
        match walk(geometry, both.linear.root(), linear(memstart, Pa(pa)), window) {
            Walk::Leaf { pa: found, level, descriptor, .. } => {
                assert!(mapped && !memblock.is_no_map(Pa(pa)), "{pa:#x} is mapped");
                assert_eq!(found, Pa(pa));
                let attributes = descriptor.attributes(geometry, level).unwrap();
                assert_eq!(Attributes { contiguous: false, ..attributes }, Attributes::KERNEL_DATA);
            }
            Walk::Fault { .. } => assert!(!mapped, "{pa:#x} is not mapped"),
        }
    }
    let shape = both.code.geometry();
    let page = walk(shape, both.code.root(), Va(code.0), window);
    let Walk::Leaf { pa, level, descriptor, .. } = page else { panic!("the code is not mapped") };
    let attributes = descriptor.attributes(shape, level).unwrap();
    assert_eq!((pa, level, attributes), (code, Level::L3, Attributes::KERNEL_TEXT));
    for beside in [code.0.wrapping_sub(PAGE), code.0 + PAGE] {
        assert!(matches!(walk(shape, both.code.root(), Va(beside), window), Walk::Fault { .. }));
    }
}

#[test]
fn tables_fail_at_every_step_and_every_frame_is_back() {
    let ram = [range(GIB, 2 * GIB)];
    assert_eq!(exhaust(&memblock(&ram, &[]), Pa(2 * GIB)), 5);
    let apart = [range(GIB, 64 * MIB), range(2 * GIB + 3 * PAGE, 5 * MIB), range(600 * GIB, GIB)];
    let too_few = exhaust(&memblock(&apart, &[range(GIB + MIB, 7 * PAGE)]), Pa(600 * GIB));
    assert!(too_few >= 10, "{too_few}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn tables_of_any_memory_map_it_and_nothing_else(
        // Gap before it and its length, in pages, and whether there is a hole in it.
        parts in prop::collection::vec((1u64..1 << 19, 8u64..1 << 19, any::<bool>()), 1..6),
        code in any::<prop::sample::Index>(),
    ) {
        let (mut memory, mut no_map, mut end) = (Vec::new(), Vec::new(), 0);
        for (gap, len, hole) in parts {
            let start = end + gap * PAGE;
            end = start + len * PAGE;
            memory.push(range(start, len * PAGE));
            if hole {
                no_map.push(range(start + len / 2 * PAGE, PAGE));
            }
        }
        let code = memory[code.index(memory.len())].start;
        exhaust(&memblock(&memory, &no_map), code);
    }
}
