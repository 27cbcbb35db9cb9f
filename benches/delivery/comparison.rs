//! Two figures of the same thing, over and over.

use std::fmt;

/// What is measured with something to compare to and with framelet, a figure each in every round.
pub(crate) struct Comparison {
    what: &'static str,
    unit: &'static str,
    /// What it is compared to.
    other: &'static str,
    others: Vec<f64>,
    framelets: Vec<f64>,
}

impl Comparison {
    pub(crate) fn of(what: &'static str, unit: &'static str, other: &'static str) -> Comparison {
        Comparison { what, unit, other, others: Vec::new(), framelets: Vec::new() }
    }

    /// Measures both; who is first takes turns.
    pub(crate) fn measure(&mut self, other: impl Fn() -> f64, framelet: impl Fn() -> f64) {
        if self.others.len().is_multiple_of(2) {
            self.others.push(other());
            self.framelets.push(framelet());
        } else {
            self.framelets.push(framelet());
            self.others.push(other());
        }
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Comparison { what, unit, other, others, framelets } = self;
        let ratios = others.iter().zip(framelets).map(|(other, framelet)| framelet / other);
        let ratios = sorted(ratios.collect());
        let [others, framelets] = [others, framelets].map(|figures| sorted(figures.clone()));
        write!(
            f,
            "{what}: {other} {:.3} {unit}, framelet {:.3} {unit}, {:.2} × (medians of {}; {:.2} to \
             {:.2} ×)",
            median(&others),
            median(&framelets),
            median(&ratios),
            ratios.len(),
            ratios[0],
            ratios[ratios.len() - 1]
        )
    }
}

fn sorted(mut figures: Vec<f64>) -> Vec<f64> {
    figures.sort_by(f64::total_cmp);
    figures
}

fn median(sorted: &[f64]) -> f64 {
    sorted[sorted.len() / 2]
}
