//! What all trees say together, as the tables of the document.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::ops::AddAssign;

use linmap_table::Leaves;
use linmap_vmsa::Geometry;

use crate::boot_loader::BANKS;
use crate::cases::CASES;
use crate::machine::{Console, Machine, conduit_name};
use crate::mapping::Mapped;
use crate::rules::build::Built;
use crate::rules::geometries::GEOMETRIES;

/// What a tree says, and what was built of it.
pub struct Board {
    /// The row of the banks that a boot loader has filled in.
    pub filled: Option<&'static str>,
    pub ram_regions: u64,
    pub ram_bytes: u64,
    pub holes: u64,
    pub hole_bytes: u64,
    pub reserved: u64,
    pub machine: Machine,
    pub mapped: Mapped,
}

/// Sums.
#[derive(Clone, Copy, Default)]
struct Sum {
    trees: u64,
    filled: u64,
    regions: u64,
    ram_bytes: u64,
    holes: u64,
    hole_bytes: u64,
    reserved: u64,
    built: Built,
}

impl AddAssign for Sum {
    fn add_assign(&mut self, other: Self) {
        self.trees += other.trees;
        self.filled += other.filled;
        self.regions += other.regions;
        self.ram_bytes += other.ram_bytes;
        self.holes += other.holes;
        self.hole_bytes += other.hole_bytes;
        self.reserved += other.reserved;
        self.built.bytes += other.built.bytes;
        self.built.table_bytes += other.built.table_bytes;
        self.built.leaves.pages += other.built.leaves.pages;
        self.built.leaves.pages_in_runs += other.built.leaves.pages_in_runs;
        self.built.leaves.blocks += other.built.leaves.blocks;
        self.built.leaves.blocks_in_runs += other.built.leaves.blocks_in_runs;
    }
}

impl Sum {
    fn of(board: &Board) -> Self {
        Self {
            trees: 1,
            filled: board.filled.is_some().into(),
            regions: board.ram_regions,
            ram_bytes: board.ram_bytes,
            holes: board.holes,
            hole_bytes: board.hole_bytes,
            reserved: board.reserved,
            built: board.mapped.built,
        }
    }

    fn memory_row(&self, name: &str) -> String {
        let Self { trees, filled, regions, holes, reserved, .. } = *self;
        let [ram, no_map] = [self.ram_bytes, self.hole_bytes].map(mib);
        row(name, &[trees, filled, regions, ram, holes, no_map, reserved])
    }

    fn map_row(&self, name: &str) -> String {
        let leaves = self.built.leaves;
        let (mapped, tables) = (mib(self.built.bytes), self.built.table_bytes >> 10);
        let kinds = [leaves.pages, leaves.pages_in_runs, leaves.blocks, leaves.blocks_in_runs];
        row(name, &[self.trees, mapped, kinds[0], kinds[1], kinds[2], kinds[3], tables])
    }
}

fn mib(bytes: u64) -> u64 {
    bytes >> 20
}

/// A row of a table, its numbers in groups of three digits.
fn row(name: &str, numbers: &[u64]) -> String {
    let mut row = format!("| {name} |");
    for number in numbers {
        let digits = number.to_string();
        let groups: Vec<_> = digits.as_bytes().rchunks(3).rev().map(String::from_utf8_lossy).collect();
        let _ = write!(row, " {} |", groups.join(" "));
    }
    row + "\n"
}

fn head(names: &[&str]) -> String {
    let lines = names.iter().skip(1).map(|_| "--:|");
    format!("| {} |\n|---|{}\n", names.join(" | "), lines.collect::<String>())
}

/// All boards by their trees' names.
#[derive(Default)]
pub struct Survey {
    pub boards: BTreeMap<String, Board>,
    /// By the case's number in [`CASES`].
    pub cases: BTreeMap<usize, BTreeSet<String>>,
}

impl Survey {
    /// The tables.
    pub fn tables(&self, package: &str) -> String {
        let mut text = format!("\nThe {} trees of `{package}`.\n", self.boards.len());
        text += "\n## Memory\n\nBytes are in MiB.\n\n";
        let names =
            ["vendor", "trees", "filled in", "RAM regions", "RAM", "no-map holes", "in them", "reserved"];
        text += &head(&names);
        text += &self.by_vendor(Sum::memory_row);
        text += "\nThe most that one tree has:\n\n";
        text += &self.most();
        text += "\n## The linear map\n\nMapped bytes are in MiB, tables in KiB, without the root.\n\n";
        let names =
            ["vendor", "trees", "mapped", "pages", "pages in runs", "blocks", "blocks in runs", "tables"];
        text += &head(&names);
        text += &self.by_vendor(Sum::map_row);
        text += "\n";
        text += &head(&[
            "geometry",
            "trees",
            "mapped",
            "pages",
            "pages in runs",
            "blocks",
            "blocks in runs",
            "tables",
        ]);
        text += &self.by_geometry();
        text += &self.too_narrow();
        text += "\n## The machine\n\n";
        text += &self.machines();
        text += "\n## Banks that are filled in\n\n| trees | how many | banks |\n|---|--:|---|\n";
        text += &self.banks();
        text += "\n## Named cases\n\n| trees | how many | what is found | why |\n|---|--:|---|---|\n";
        for (nth, trees) in &self.cases {
            let case = &CASES[*nth];
            let found = case.found;
            let _ = writeln!(text, "| `{}` | {} | {found} | {} |", case.trees, trees.len(), case.why);
        }
        text
    }

    fn sum(&self, wanted: impl Fn(&str, &Board) -> bool) -> Sum {
        let mut sum = Sum::default();
        let wanted = self.boards.iter().filter(|(name, board)| wanted(name, board));
        wanted.for_each(|(_, board)| sum += Sum::of(board));
        sum
    }

    fn by_vendor(&self, row: fn(&Sum, &str) -> String) -> String {
        let vendor = |name: &str| name.split('/').next().unwrap_or_default().to_owned();
        let vendors: BTreeSet<_> = self.boards.keys().map(|name| vendor(name)).collect();
        let rows = vendors.iter().map(|it| row(&self.sum(|name, _| vendor(name) == *it), it));
        rows.collect::<String>() + &row(&self.sum(|_, _| true), "**all**")
    }

    fn by_geometry(&self) -> String {
        let of = |geometry: Geometry| {
            let granule = geometry.granule().bytes() >> 10;
            let name = format!("{granule}K, VA {}, PA {}", geometry.va_bits(), geometry.pa_bits());
            self.sum(|_, board| board.mapped.geometry == geometry).map_row(&name)
        };
        let kinds = [Leaves::Pages, Leaves::Blocks, Leaves::ContiguousBlocks];
        let names = ["leaves: pages", "leaves: blocks", "leaves: blocks and runs"];
        let kinds = kinds.into_iter().zip(names);
        let rows = kinds.map(|(kind, name)| self.sum(|_, board| board.mapped.leaves == kind).map_row(name));
        GEOMETRIES.into_iter().map(of).chain(rows).collect()
    }

    fn too_narrow(&self) -> String {
        let narrow = self.boards.values().filter(|board| !board.mapped.too_narrow.is_empty());
        let bits = narrow.clone().flat_map(|board| &board.mapped.too_narrow).map(|it| it.va_bits());
        let bits: BTreeSet<_> = bits.map(|bits| bits.to_string()).collect();
        let bits: Vec<_> = bits.into_iter().collect();
        format!(
            "\n{} trees were first tried with a VA of {} bits: their memory is refused as too wide for the\n\
             linear region, and they are in the row of the next geometry.\n",
            narrow.count(),
            bits.join(" or ")
        )
    }

    fn most(&self) -> String {
        let mut text = head(&["", "how many"]);
        let most = |number: fn(&Board) -> u64| self.boards.values().map(number).max().unwrap_or_default();
        text += &row("RAM regions", &[most(|board| board.ram_regions)]);
        text += &row("no-map holes in RAM", &[most(|board| board.holes)]);
        text += &row("reserved ranges", &[most(|board| board.reserved)]);
        text + &row("CPUs", &[most(|board| board.machine.cpus as u64)])
    }

    fn machines(&self) -> String {
        let count = |wanted: &dyn Fn(&Machine) -> bool| {
            self.boards.values().filter(|board| wanted(&board.machine)).count() as u64
        };
        let mut text = head(&["", "trees"]);
        for conduit in [Some(linmap_platform::Conduit::Smc), Some(linmap_platform::Conduit::Hvc), None] {
            let name = conduit.map_or("no PSCI".to_owned(), |it| format!("PSCI by {}", conduit_name(it)));
            text += &row(&name, &[count(&|machine| machine.conduit == conduit)]);
        }
        for gic in [Some(2), Some(3), None] {
            let name = gic.map_or("no GIC".to_owned(), |version| format!("GICv{version}"));
            text += &row(&name, &[count(&|machine| machine.gic.map(|version| version.number()) == gic)]);
        }
        let consoles: BTreeSet<_> = self.boards.values().map(|board| &board.machine.console).collect();
        for console in consoles {
            let name = match console {
                Console::Uart(uart) => format!("console: {uart}"),
                Console::NoDriver(name) => format!("console without a driver: `{name}`"),
                Console::NotNamed => "no `stdout-path`".to_owned(),
                Console::NoNode => "`stdout-path` is an alias that the tree lacks".to_owned(),
            };
            text += &row(&name, &[count(&|machine| machine.console == *console)]);
        }
        text
    }

    fn banks(&self) -> String {
        let mut text = String::new();
        for (start, banks) in BANKS {
            let count = self.boards.values().filter(|board| board.filled == Some(start)).count();
            let [low, high] = banks.map(|(start, len)| format!("{start:#x}..{:#x}", start + len));
            if count > 0 {
                let _ = writeln!(text, "| `{start}…` | {count} | {low}, {high} |");
            }
        }
        text
    }
}
