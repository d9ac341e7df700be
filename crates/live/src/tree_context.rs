//! The context of a live tree: what follows from its geometry and its CPUs, and the walks from its
//! root.

use core::slice;

use linmap_vmsa::id::BbmLevel;
use linmap_vmsa::tlbi::RangeOperand;
use linmap_vmsa::{Descriptor, Geometry, HardwareUpdates, LINEAR_SPAN, Level, Pa, Va, VaRange};

use crate::gather::{ACCESSED, updated_bits};
use crate::half::Half;
use crate::node::Node;
use crate::plan_error::PlanError;
use crate::scope::Scope;
use linmap_table::{Leaves, TableWindow};

/// What all planners and the check need to know of a live tree.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct TreeContext {
    pub geometry: Geometry,
    pub bbm: BbmLevel,
    pub range_invalidation: bool,
    /// What hardware updates in the leaves.
    pub updates: HardwareUpdates,
    /// The leaves that plans make.
    pub leaves: Leaves,
    /// Bits of an address that a full table resolves.
    index_bits: u32,
    /// Index of the last entry of a full table.
    last_index: usize,
    /// log2 of the bytes of a page.
    pub page_shift: u32,
    /// The bits of a table descriptor that hold the address, if all of them are in place (up to 48
    /// bits). Otherwise 0.
    table_bits: u64,
    /// All bits that can hold an address in a descriptor.
    pub address_bits: u64,
    /// Whose TLB entries belong to the tree.
    pub scope: Scope,
    /// The most entries of a store in a plan that the fast path of the check may accept: 0 where
    /// plans have more steps, or where the table of a page may be shorter than others.
    pub few: u16,
    /// Whether the regime has user space, no table takes a permission away, and hardware updates
    /// nothing.
    pub is_plain: bool,
    /// Whether hardware updates nothing, and invalidations name every ASID or the VMID.
    pub is_applied_plainly: bool,
    /// Whether every edit is planned by [`each_root`](crate::planner::Planner::each_root): the root
    /// consists of several tables, or hardware updates leaves.
    pub by_root: bool,
    /// Whether the root consists of several tables.
    pub concatenated: bool,
    /// The root table, or the first one. For a part of a space: the lowest table that translates
    /// all of it.
    pub top: Node,
    /// The frame of the root table.
    pub root: Pa,
    /// The first address that plans may change.
    pub first: u64,
    /// The last one.
    pub last: u64,
}

/// A store to more entries goes through the check of all steps.
const FEW: u16 = 16;

/// The level with this number. No walk goes beyond the level of pages.
#[inline(always)]
const fn level(number: i8) -> Level {
    match Level::new(number) {
        Some(level) => level,
        None => Level::L3,
    }
}

/// The next table when address bits of the entry are not all in place.
#[cold]
#[inline(never)]
const fn next_table_of_52_bits(geometry: Geometry, entry: Descriptor) -> Option<Pa> {
    entry.next_table(geometry)
}

impl TreeContext {
    pub const fn new(geometry: Geometry, root: Pa, half: Half, bbm: BbmLevel) -> Self {
        let level = geometry.start_level();
        let base = match half {
            Half::Low => 0,
            Half::High => u64::MAX << geometry.va_bits(),
        };
        let top = Node { table: root, base, shift: geometry.shift(level), level };
        let granule = geometry.granule();
        let (index_bits, page_shift) = (granule.index_bits(), granule.shift());
        let address_bits = Descriptor::address_bits(geometry);
        let in_place = geometry.va_bits() <= 48 && geometry.pa_bits() <= 48;
        let table_bits = if in_place { (LINEAR_SPAN - 1) & !(granule.bytes() - 1) } else { 0 };
        Self {
            geometry,
            bbm,
            range_invalidation: false,
            updates: HardwareUpdates::Off,
            leaves: Leaves::ContiguousBlocks,
            index_bits,
            last_index: (1 << index_bits) - 1,
            page_shift,
            table_bits,
            address_bits,
            scope: if geometry.regime().is_stage_2() { Scope::Vmid } else { Scope::Every },
            few: if geometry.regime().is_stage_2() || level.number() == 3 { 0 } else { FEW },
            is_plain: geometry.regime().has_user_space() && geometry.table_permissions().is_all(),
            is_applied_plainly: true,
            by_root: geometry.root_tables() > 1,
            concatenated: geometry.root_tables() > 1,
            top,
            root,
            first: base,
            last: base.wrapping_add(1u64.wrapping_shl(geometry.va_bits() as u32).wrapping_sub(1)),
        }
    }

    /// The same for plans that change `first..=last` alone, addresses of this context. Their walks
    /// begin at `top`, a table that translates all of them.
    pub const fn part(self, top: Node, first: u64, last: u64) -> Self {
        let is_top = top.table.0 == self.top.table.0;
        let few = if top.level.number() == 3 { 0 } else { self.few };
        let concatenated = self.concatenated && is_top;
        let by_root = concatenated || self.updates.is_on();
        Self { top, first, last, few, by_root, concatenated, ..self }
    }

    /// The same on CPUs that all have invalidations by range.
    pub const fn with_range_invalidation(self) -> Self {
        Self { range_invalidation: true, ..self }
    }

    /// The same where hardware updates leaves.
    pub const fn with_hardware_updates(self, updates: HardwareUpdates) -> Self {
        if !updates.is_on() {
            return self;
        }
        Self { updates, few: 0, is_plain: false, is_applied_plainly: false, by_root: true, ..self }
    }

    /// The same for a user space of its own ASID.
    pub const fn in_asid(self, asid: u16) -> Self {
        Self { scope: Scope::Asid(asid), is_applied_plainly: false, ..self }
    }

    /// The root table that translates `va`, an address of the half: where a walk begins.
    #[inline]
    pub const fn root(&self, va: u64) -> Node {
        if self.concatenated { self.root_of_several(va) } else { self.top }
    }

    #[cold]
    #[inline(never)]
    const fn root_of_several(&self, va: u64) -> Node {
        let table = self.geometry.root_table(self.top.table, Va(va));
        let base = va & !(self.table_bytes(self.top.level).wrapping_sub(1));
        Node { table, base, ..self.top }
    }

    /// The last address that the root table for `va` translates, where the root consists of
    /// several.
    pub const fn root_end(&self, va: u64) -> u64 {
        va | self.table_bytes(self.top.level).wrapping_sub(1)
    }

    /// The table that entry `index` of `node`, a table above the level of pages, leads to.
    #[inline]
    pub const fn below(&self, node: Node, index: usize, table: Pa) -> Node {
        let level = level(node.level.number().wrapping_add(1));
        Node { table, base: node.va(index), shift: node.shift.wrapping_sub(self.index_bits), level }
    }

    /// The table that an entry above the level of pages leads to.
    #[inline]
    pub const fn next_table(&self, entry: Descriptor) -> Option<Pa> {
        if self.table_bits == 0 {
            return next_table_of_52_bits(self.geometry, entry);
        }
        if entry.may_be_table() { Some(Pa(entry.0 & self.table_bits)) } else { None }
    }

    /// Reads entry `index` of the table in frame `table`, an index that the table has.
    #[inline(always)]
    pub fn read<W: TableWindow>(&self, window: &mut W, level: Level, table: Pa, index: usize) -> Descriptor {
        // SAFETY: by the promise of `LiveTree::new` the window reaches every table of the tree.
        // `last_index` is the index of a granule's last entry and all ones in binary, so the masked
        // index is one of a granule's entries.
        unsafe { linmap_table::read(window, level, table, index & self.last_index) }
    }

    /// Runs `look` on the entries `from..=to` of `node`, which it has, as they are in memory; on a
    /// copy of them where hardware updates them.
    // Inlined: the loops in `look` are specialised for where they are used.
    #[inline(always)]
    pub fn look<W: TableWindow, T>(
        &self,
        window: &mut W,
        node: Node,
        from: usize,
        to: usize,
        look: impl FnOnce(&[u64]) -> T,
    ) -> T {
        if self.updates.is_on() {
            return self.look_at_copy(window, node, from, to, look);
        }
        // SAFETY: by the promise of `LiveTree::new` the window reaches every table of the tree.
        let pointer = unsafe { window.open(node.level, node.table) };
        // SAFETY: an open table is valid for reads of a whole granule, and `from..=to` are some of
        // its entries, initialised by whoever built the tree. Nothing writes to them during the
        // call: only the tree's one `LiveTree` changes it, which is borrowed, hardware updates
        // nothing, and the editors of other parts write to no entry that plans of this part read.
        let entries = unsafe { slice::from_raw_parts(pointer.as_ptr().add(from), to - from + 1) };
        let result = look(entries);
        window.close(node.level);
        result
    }

    /// [`look`](Self::look) on a copy of the entries: no slice may lead to what hardware updates.
    #[cold]
    #[inline(never)]
    fn look_at_copy<W: TableWindow, T>(
        &self,
        window: &mut W,
        node: Node,
        from: usize,
        to: usize,
        look: impl FnOnce(&[u64]) -> T,
    ) -> T {
        // Most looks are at a few entries. A table of 4 KiB has 512, of 64 KiB 8192.
        match to - from + 1 {
            0..=32 => self.look_at_part::<32, _, _>(window, node, from, to, look),
            33..=512 => self.look_at_part::<512, _, _>(window, node, from, to, look),
            513..=2048 => self.look_at_part::<2048, _, _>(window, node, from, to, look),
            _ => self.look_at_part::<8192, _, _>(window, node, from, to, look),
        }
    }

    // Out of line, so that a small copy takes little stack.
    #[inline(never)]
    fn look_at_part<const N: usize, W: TableWindow, T>(
        &self,
        window: &mut W,
        node: Node,
        from: usize,
        to: usize,
        look: impl FnOnce(&[u64]) -> T,
    ) -> T {
        let mut copy = [0; N];
        // SAFETY: by the promise of `LiveTree::new` the window reaches every table of the tree.
        let pointer = unsafe { window.open(node.level, node.table) };
        for (nth, entry) in copy.iter_mut().take(to - from + 1).enumerate() {
            // SAFETY: an open table is valid for reads of a whole granule, and this is one of its
            // entries. Hardware may update it, so the read is volatile.
            *entry = unsafe { pointer.add(from + nth).read_volatile() };
        }
        window.close(node.level);
        look(copy.get(..to - from + 1).unwrap_or_default())
    }

    /// Walks in memory from `node` for `va`, an address that `node` translates. Returns the table
    /// at level `to`, or the last one above it; `node` itself if that is lower.
    #[inline(always)]
    pub fn descend<W: TableWindow>(&self, node: Node, window: &mut W, va: u64, to: Level) -> Node {
        self.descend_by(node, window, va, to, |_, _, _, memory| memory)
    }

    /// As [`descend`](Self::descend), where `value` maps an entry, named by level, table and index,
    /// and its content in memory to the descriptor that the walk uses.
    #[inline(always)]
    pub fn descend_by<W: TableWindow>(
        &self,
        node: Node,
        window: &mut W,
        va: u64,
        to: Level,
        value: impl Fn(Level, Pa, usize, Descriptor) -> Descriptor,
    ) -> Node {
        let shift = self.shift(to);
        let node = self.descend_to(node, window, va, shift, value);
        // Nearly always true: then the level need not be computed from the number of turns.
        if node.shift == shift { Node { level: to, ..node } } else { node }
    }

    /// Walks in memory from `node` for `va`, an address that `node` translates. Returns the table
    /// at level `to`, if there is one.
    #[inline(always)]
    pub fn table_at<W: TableWindow>(&self, node: Node, window: &mut W, va: u64, to: Level) -> Option<Node> {
        let shift = self.shift(to);
        let node = self.descend_to(node, window, va, shift, |_, _, _, memory| memory);
        (node.shift == shift).then_some(Node { level: to, ..node })
    }

    /// As [`descend`](Self::descend), to entries that translate `1 << to` bytes or the next larger.
    // Inlined: a walk is three or four turns of this loop, and a call costs more than one of them.
    #[inline(always)]
    pub fn descend_to<W: TableWindow>(
        &self,
        node: Node,
        window: &mut W,
        va: u64,
        to: u32,
        value: impl Fn(Level, Pa, usize, Descriptor) -> Descriptor,
    ) -> Node {
        // A turn updates only the table and its place. The rest of the node follows from these at
        // the end.
        let Node { mut table, mut shift, .. } = node;
        let offset = va.wrapping_sub(node.base);
        let mut number = node.level.number();
        while shift > to {
            let index = offset.wrapping_shr(shift) as usize & self.last_index;
            let at = level(number);
            let memory = self.read(window, at, table, index);
            let Some(next) = self.next_table(value(at, table, index, memory)) else { break };
            (table, shift, number) = (next, shift.wrapping_sub(self.index_bits), number.wrapping_add(1));
        }
        let within = 1u64.wrapping_shl(shift.wrapping_add(self.index_bits)).wrapping_sub(1);
        Node { table, base: va.wrapping_sub(offset & within), shift, level: level(number) }
    }

    /// The lowest table in memory that translates all of `first..=last`, or [`top`](Self::top) where
    /// several tables of the root do together.
    pub fn lowest_of_all<W: TableWindow>(&self, window: &mut W, first: u64, last: u64) -> Node {
        // The number of low bits in which the addresses may differ. No entry of fewer bits
        // translates both.
        let bits = u64::BITS - (first ^ last).leading_zeros();
        let to = bits.saturating_sub(1).max(self.page_shift);
        let root = self.root(first);
        if !self.translates(root, last) {
            return self.top;
        }
        let lowest = self.descend_to(root, window, first, to, |_, _, _, memory| memory);
        if self.translates(lowest, last) { lowest } else { self.top }
    }

    /// The lowest table in memory for `va`, an address of the half.
    #[inline]
    pub fn lowest<W: TableWindow>(&self, window: &mut W, va: u64) -> Node {
        self.descend(self.root(va), window, va, Level::L3)
    }

    /// The table in memory at `level`, or the lowest above it, for `va`, an address of the half.
    #[inline]
    pub fn lowest_to<W: TableWindow>(&self, window: &mut W, va: u64, level: Level) -> Node {
        self.descend(self.root(va), window, va, level)
    }

    /// The entries of `node` that translate anything in `first..=last`, a range that reaches into
    /// the table.
    #[inline]
    pub const fn indices(&self, node: Node, first: u64, last: u64) -> (usize, usize) {
        let end = self.entries(node.level) - 1;
        let from = if first < node.base { 0 } else { node.index(first) };
        let to = node.index(last);
        (from, if to < end { to } else { end })
    }

    /// log2 of the bytes that one entry at `level` translates.
    #[inline]
    pub const fn shift(&self, level: Level) -> u32 {
        self.page_shift
            .wrapping_add(self.index_bits.wrapping_mul(3i32.wrapping_sub(level.number() as i32) as u32))
    }

    /// How many bytes a table at `level`, below the root, translates.
    #[inline]
    pub const fn table_bytes(&self, level: Level) -> u64 {
        1u64.wrapping_shl(self.shift(level).wrapping_add(self.index_bits))
    }

    /// Whether `node` translates `va`, an address of the half.
    #[inline]
    pub const fn translates(&self, node: Node, va: u64) -> bool {
        (va ^ node.base).wrapping_shr(node.shift.wrapping_add(self.index_bits)) == 0
    }

    /// How many pages a table below the root has.
    #[inline]
    pub const fn page_entries(&self) -> usize {
        self.last_index.wrapping_add(1)
    }

    /// How many entries a table at `level` has.
    #[inline]
    pub const fn entries(&self, level: Level) -> usize {
        if level.number() == self.top.level.number() {
            self.geometry.entries(level)
        } else {
            self.last_index.wrapping_add(1)
        }
    }

    /// Returns whether one invalidation by range can cover exactly `pages` pages from `va` on.
    pub const fn can_say(&self, va: Va, pages: u64) -> bool {
        match RangeOperand::any_asid(self.geometry, va, pages) {
            Some((_, covered)) => self.range_invalidation && covered == pages,
            None => false,
        }
    }

    /// First address that the root table translates.
    #[inline]
    pub const fn base(&self) -> u64 {
        self.top.base
    }

    /// Whether `va` lies in the half, or in the part of it.
    #[inline]
    pub const fn holds(&self, va: u64) -> bool {
        self.first <= va && va <= self.last
    }

    /// Whether plans may change a part of the half alone.
    const fn is_part(&self) -> bool {
        self.last.wrapping_sub(self.first).wrapping_add(1)
            != 1u64.wrapping_shl(self.geometry.va_bits() as u32)
    }

    /// The first and the last address of `range`, if it is made of whole pages of this half, or of
    /// the part of it.
    #[inline]
    pub fn bounds(&self, range: VaRange) -> Result<(u64, u64), PlanError> {
        let (first, last) = (range.start.0, range.start.0.wrapping_add(range.len).wrapping_sub(1));
        let page = 1u64.wrapping_shl(self.page_shift).wrapping_sub(1);
        let is_pages = range.len != 0 && (range.start.0 | range.len) & page == 0;
        // The half has no gap: a range that begins and ends in it and does not wrap lies in it.
        if is_pages && self.first <= first && first <= last && last <= self.last {
            return Ok((first, last));
        }
        Err(self.no_bounds(range, is_pages))
    }

    #[cold]
    #[inline(never)]
    fn no_bounds(&self, range: VaRange, is_pages: bool) -> PlanError {
        if !is_pages {
            return PlanError::Unaligned { range, granule: 1 << self.page_shift };
        }
        if self.is_part() {
            let part = VaRange::new(Va(self.first), self.last.wrapping_sub(self.first).wrapping_add(1));
            return PlanError::OutsidePart { range, part };
        }
        PlanError::OutsideHalf { range, base: Va(self.base()), bits: self.geometry.va_bits() }
    }

    /// The bits that hardware may change in `leaf`.
    pub const fn updatable(&self, leaf: Descriptor) -> u64 {
        match self.updates {
            HardwareUpdates::Off => 0,
            HardwareUpdates::Accessed => ACCESSED,
            HardwareUpdates::AccessedAndDirty => updated_bits(leaf.0),
        }
    }

    /// How many entries at `level` make a contiguous run, where the table is long enough for one.
    pub fn run(&self, level: Level) -> Option<usize> {
        self.geometry.contiguous_entries(level).filter(|run| *run <= self.entries(level))
    }

    /// [`run`](Self::run), if plans make runs.
    pub fn new_run(&self, level: Level) -> Option<usize> {
        let run = self.geometry.new_run_entries(level).filter(|run| *run <= self.entries(level));
        run.filter(|_| self.leaves == Leaves::ContiguousBlocks)
    }
}
