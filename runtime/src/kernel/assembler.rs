//! Programs of the kernel's classic filter machine with jumps to marks: a comparison reaches 255 instructions far, so those that must reach further go
//! over a jump behind them that reaches any.

use super::seccomp::Instruction;

/// A place in a program; jumps lead forward only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark(usize);

/// How a comparison compares what was loaded with its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    Equal = 0x15,
    Greater = 0x25,
    AtLeast = 0x35,
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Mark(Mark),
    Plain(u16, u32),
    /// `None` is the next instruction.
    Branch(Comparison, u32, [Option<Mark>; 2]),
}

const LOAD: u16 = 0x20;
const AND: u16 = 0x54;
const RETURN: u16 = 0x06;
const JUMP: u16 = 0x05;

/// A program under construction.
#[derive(Debug, Default)]
pub struct Assembler {
    steps: Vec<Step>,
    marks: usize,
}

impl Assembler {
    /// A new mark, to be placed later.
    pub fn mark(&mut self) -> Mark {
        self.marks += 1;
        Mark(self.marks - 1)
    }

    /// The next instruction is where the mark stands.
    pub fn place(&mut self, mark: Mark) {
        self.steps.push(Step::Mark(mark));
    }

    /// 32 bits of the call's data.
    pub fn load(&mut self, offset: u32) {
        self.steps.push(Step::Plain(LOAD, offset));
    }

    /// Of what was loaded, these bits.
    pub fn and(&mut self, bits: u32) {
        self.steps.push(Step::Plain(AND, bits));
    }

    /// The end of the program with an answer.
    pub fn answer(&mut self, answer: u32) {
        self.steps.push(Step::Plain(RETURN, answer));
    }

    /// Where to go on; `None` is the next instruction.
    pub fn branch(&mut self, how: Comparison, value: u32, yes: Option<Mark>, no: Option<Mark>) {
        self.steps.push(Step::Branch(how, value, [yes, no]));
    }

    /// The program; `None` where it is longer than the kernel takes.
    pub fn finish(self) -> Option<Vec<Instruction>> {
        const MOST: usize = 4096;
        let mut far = vec![[false; 2]; self.steps.len()];
        let mut layout = self.layout(&far);
        while self.grow(&layout, &mut far) {
            layout = self.layout(&far);
        }
        let program: Vec<Instruction> =
            self.steps.iter().enumerate().flat_map(|(n, step)| emit(*step, n, &layout, far[n])).collect();
        (program.len() <= MOST).then_some(program)
    }

    fn layout(&self, far: &[[bool; 2]]) -> Layout {
        let mut layout = Layout { at: Vec::with_capacity(self.steps.len()), marks: vec![0; self.marks] };
        let mut here = 0;
        for (step, far) in self.steps.iter().zip(far) {
            layout.at.push(here);
            here += match step {
                Step::Mark(Mark(number)) => {
                    layout.marks[*number] = here;
                    0
                }
                Step::Plain(..) => 1,
                Step::Branch(..) => 1 + usize::from(far[0]) + usize::from(far[1]),
            };
        }
        layout
    }

    /// Finds jumps that have become too far. Only ever more, so this ends.
    fn grow(&self, layout: &Layout, far: &mut [[bool; 2]]) -> bool {
        let mut grown = false;
        for (number, step) in self.steps.iter().enumerate() {
            let Step::Branch(_, _, to) = step else { continue };
            for side in 0..2 {
                let too_far = to[side].is_some_and(|mark| layout.marks[mark.0] - layout.at[number] > 255);
                if too_far && !far[number][side] {
                    far[number][side] = true;
                    grown = true;
                }
            }
        }
        grown
    }
}

struct Layout {
    at: Vec<usize>,
    marks: Vec<usize>,
}

fn emit(step: Step, number: usize, layout: &Layout, far: [bool; 2]) -> Vec<Instruction> {
    match step {
        Step::Mark(_) => Vec::new(),
        Step::Plain(code, value) => vec![Instruction::new(code, [0, 0], value)],
        Step::Branch(how, value, to) => {
            let here = layout.at[number];
            let behind = usize::from(far[0]) + usize::from(far[1]);
            // The jump of the first side stands first.
            let jump_at = |side: usize| if side == 0 { 0 } else { usize::from(far[0]) };
            let offset = |side: usize| match to[side] {
                None => behind,
                Some(_) if far[side] => jump_at(side),
                Some(mark) => layout.marks[mark.0] - here - 1,
            };
            let mut all = vec![Instruction::new(how as u16, [offset(0) as u8, offset(1) as u8], value)];
            for side in 0..2 {
                if let (true, Some(mark)) = (far[side], to[side]) {
                    let from = here + 1 + jump_at(side);
                    all.push(Instruction::new(JUMP, [0, 0], (layout.marks[mark.0] - from - 1) as u32));
                }
            }
            all
        }
    }
}
