//! Columns of what was decoded. A record that turns out to be doubtful leaves no trace in them.
#![forbid(unsafe_code)]

/// Where each value ends in `data`, as Arrow has it, and which are not null.
pub struct Texts {
    pub offsets: Vec<i32>,
    pub data: Vec<u8>,
    pub valid: Vec<bool>,
}

impl Texts {
    fn new(rows: usize) -> Self {
        let mut offsets = Vec::with_capacity(rows + 1);
        offsets.push(0);
        Texts { offsets, data: Vec::new(), valid: Vec::with_capacity(rows) }
    }

    /// Doubt where 32 bits can't hold the offset.
    #[inline]
    pub fn push(&mut self, value: Option<&[u8]>) -> Option<()> {
        let bytes = value.unwrap_or_default();
        let end = i32::try_from(self.data.len() + bytes.len()).ok()?;
        self.data.extend_from_slice(bytes);
        self.offsets.push(end);
        self.valid.push(value.is_some());
        Some(())
    }

    pub fn get(&self, row: usize) -> Option<&[u8]> {
        let start = usize::try_from(*self.offsets.get(row)?).ok()?;
        let end = usize::try_from(*self.offsets.get(row + 1)?).ok()?;
        self.data.get(start..end)
    }

    fn cut(&mut self, rows: usize) {
        self.offsets.truncate(rows + 1);
        self.valid.truncate(rows);
        let end = self.offsets.last().copied().unwrap_or_default();
        self.data.truncate(usize::try_from(end).unwrap_or_default());
    }
}

pub struct Columns {
    /// Records that are decoded.
    pub rows: usize,
    pub longs: Vec<Vec<i64>>,
    /// All number columns one after the other, each of `capacity` rows; `nulls` likewise.
    pub numbers: Vec<f64>,
    pub nulls: Vec<bool>,
    pub texts: Vec<Texts>,
    capacity: usize,
}

impl Columns {
    pub fn new(longs: usize, numbers: usize, texts: usize, capacity: usize) -> Self {
        Columns {
            rows: 0,
            longs: (0..longs).map(|_| vec![0; capacity]).collect(),
            numbers: vec![f64::NAN; numbers * capacity],
            nulls: vec![false; numbers * capacity],
            texts: (0..texts).map(|_| Texts::new(capacity)).collect(),
            capacity,
        }
    }

    #[inline]
    pub fn set_long(&mut self, column: usize, value: i64) -> Option<()> {
        *self.longs.get_mut(column)?.get_mut(self.rows)? = value;
        Some(())
    }

    #[inline]
    pub fn set_number(&mut self, column: usize, value: f64) -> Option<()> {
        *self.numbers.get_mut(column * self.capacity + self.rows)? = value;
        Some(())
    }

    #[inline]
    pub fn set_null(&mut self, column: usize) -> Option<()> {
        let at = column * self.capacity + self.rows;
        *self.numbers.get_mut(at)? = f64::NAN;
        *self.nulls.get_mut(at)? = true;
        Some(())
    }

    /// Whether a number of the next row is null, or finite and from `least` to `greatest`.
    #[inline]
    pub fn is_number(&self, column: usize, least: f64, greatest: f64) -> bool {
        let at = column * self.capacity + self.rows;
        match (self.nulls.get(at), self.numbers.get(at)) {
            (Some(true), _) => true,
            (_, Some(&value)) => value.is_finite() && (least..=greatest).contains(&value),
            _ => false,
        }
    }

    /// Keep the values of the record.
    #[inline]
    pub fn accept(&mut self) {
        self.rows += 1;
    }

    /// Discard the values of the record.
    pub fn refuse(&mut self) {
        for texts in &mut self.texts {
            texts.cut(self.rows);
        }
        for column in 0..self.nulls.len().checked_div(self.capacity).unwrap_or_default() {
            if let Some(null) = self.nulls.get_mut(column * self.capacity + self.rows) {
                *null = false;
            }
        }
    }

    /// Make the columns as long as there are records.
    pub fn finish(&mut self) {
        if self.rows == self.capacity {
            return;
        }
        for longs in &mut self.longs {
            longs.truncate(self.rows);
        }
        compact(&mut self.numbers, self.capacity, self.rows);
        compact(&mut self.nulls, self.capacity, self.rows);
        self.capacity = self.rows;
    }
}

fn compact<T: Copy>(values: &mut Vec<T>, from: usize, to: usize) {
    let columns = values.len().checked_div(from).unwrap_or_default();
    for column in 1..columns {
        values.copy_within(column * from..column * from + to, column * to);
    }
    values.truncate(columns * to);
}
