// SPDX-License-Identifier: GPL-2.0
//! Plots, as SVG that suits light and dark pages: what is ink takes the reader's, and the ground is theirs.

use anyhow::{Result, anyhow};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

/// Stands for ink until the plot is text.
const INK: RGBColor = RGBColor(1, 2, 3);
const INK_TEXT: &str = "#010203";
const INK_STYLE: &str = "<style>svg { color: #1f2328 } \
    @media (prefers-color-scheme: dark) { svg { color: #d1d7e0 } }</style>";
/// To be told apart on white and on black, and by who sees few colours.
const COLOURS: [RGBColor; 6] = [
    RGBColor(136, 136, 136),
    RGBColor(59, 143, 217),
    RGBColor(224, 130, 20),
    RGBColor(44, 162, 95),
    RGBColor(192, 91, 176),
    RGBColor(214, 69, 65),
];
const SIZE: (u32, u32) = (760, 380);
const FONT: &str = "sans-serif";

/// A line through points, with a name.
pub struct Series {
    pub name: String,
    pub points: Vec<(u64, u64)>,
}

/// A bar in parts, with a name.
pub struct Bar {
    pub name: String,
    pub parts: Vec<u64>,
}

/// A number as axes have it.
fn short(number: f64) -> String {
    let units = [(1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")];
    let unit = units.into_iter().find(|&(unit, _)| number >= unit);
    match unit {
        Some((unit, name)) => format!("{} {name}", (number / unit * 10.0).round() / 10.0),
        None => format!("{}", (number * 10.0).round() / 10.0),
    }
}

fn font(size: f64) -> TextStyle<'static> {
    (FONT, size).into_font().color(&INK)
}

/// What the vertical axis is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Axis {
    /// Equal steps are equal factors.
    Logarithmic,
    /// From 0.
    Linear,
}

/// Lines, with a name each where they end; across in equal factors. None, if there is nothing to draw.
pub fn lines(
    title: &str,
    (x, y): (&str, &str),
    axis: Axis,
    series: &[Series],
) -> Result<Option<String>> {
    let points = || series.iter().flat_map(|series| series.points.iter());
    let mut marks: Vec<_> = points().map(|&(x, _)| x).collect();
    marks.sort_unstable();
    marks.dedup();
    let (&[left, .., right], Some(most)) = (&marks[..], points().map(|&(_, y)| y).max()) else {
        return Ok(None);
    };
    let least = points().map(|&(_, y)| y).min().unwrap_or(1).max(1) as f64;
    // Logarithms are drawn, on a plain axis.
    let high = |number: f64| match axis {
        Axis::Logarithmic => number.max(1.0).log10(),
        Axis::Linear => number,
    };
    let span = match axis {
        Axis::Logarithmic => high(least) - 0.1..high(most as f64) + 0.1,
        Axis::Linear => 0.0..most as f64 * 1.1,
    };
    let mut text = String::new();
    {
        let area = SVGBackend::with_string(&mut text, SIZE).into_drawing_area();
        let write = |text: &str, place: (i32, i32), pos, colour: &RGBColor| {
            let style = font(13.0).pos(pos).color(colour);
            area.draw(&Text::new(text.to_owned(), place, style))
                .map_err(failed)
        };
        let mut chart = ChartBuilder::on(&area)
            .caption(title, font(17.0))
            .margin(10)
            .margin_right(150)
            .x_label_area_size(42)
            .y_label_area_size(72)
            .build_cartesian_2d((left as f64).log2()..(right as f64).log2(), span.clone())
            .map_err(failed)?;
        let power = |y: &f64| match axis {
            // Whole powers of ten are told, not what lies between.
            Axis::Logarithmic if (y - y.round()).abs() > 0.01 => String::new(),
            Axis::Logarithmic => short(10f64.powf(y.round())),
            Axis::Linear => short(*y),
        };
        chart
            .configure_mesh()
            .disable_x_mesh()
            .x_labels(0)
            .y_labels(6)
            .light_line_style(TRANSPARENT)
            .bold_line_style(INK.mix(0.15))
            .axis_style(INK.mix(0.6))
            .label_style(font(13.0))
            .axis_desc_style(font(13.0))
            .y_label_formatter(&power)
            .x_desc(x)
            .y_desc(y)
            .draw()
            .map_err(failed)?;
        // Only what was measured.
        for mark in marks {
            let (x, y) = chart.backend_coord(&((mark as f64).log2(), span.start));
            let pos = Pos::new(HPos::Center, VPos::Top);
            write(&mark.to_string(), (x, y + 8), pos, &INK)?;
        }
        let mut ends = Vec::new();
        for (index, series) in series.iter().enumerate() {
            let colour = COLOURS[index % COLOURS.len()];
            let place = |&(x, y): &(u64, u64)| ((x as f64).log2(), high(y as f64));
            let points: Vec<_> = series.points.iter().map(place).collect();
            chart
                .draw_series(LineSeries::new(points.clone(), colour.stroke_width(2)))
                .map_err(failed)?;
            chart
                .draw_series(points.iter().map(|&p| Circle::new(p, 3, colour.filled())))
                .map_err(failed)?;
            if let Some(end) = points.last() {
                ends.push((chart.backend_coord(end), &series.name, colour));
            }
        }
        // Names of lines that end near each other go below each other.
        ends.sort_by_key(|&((_, y), _, _)| y);
        // All stand at the right edge, where no line runs through them.
        let x = ends.iter().map(|&((x, _), _, _)| x).max().unwrap_or(0);
        let mut free = 0;
        for ((_, y), name, colour) in ends {
            let y = y.max(free);
            free = y + 16;
            write(
                name,
                (x + 9, y),
                Pos::new(HPos::Left, VPos::Center),
                &colour,
            )?;
        }
        area.present().map_err(failed)?;
    }
    Ok(Some(inked(&text)))
}

/// Bars in parts that have names, across.
pub fn bars(title: &str, unit: &str, parts: &[&str], bars: &[Bar]) -> Result<Option<String>> {
    let most = bars.iter().map(|bar| bar.parts.iter().sum::<u64>()).max();
    let Some(most) = most.filter(|&most| most > 0) else {
        return Ok(None);
    };
    let (left, top, step, height) = (170, 64, 30, 20);
    let size = (SIZE.0, (top + step * bars.len() as i32 + 16) as u32);
    let width = f64::from(SIZE.0) - f64::from(left) - 90.0;
    let mut text = String::new();
    {
        let area = SVGBackend::with_string(&mut text, size).into_drawing_area();
        let write = |text: &str, place: (i32, i32), style: TextStyle<'static>| {
            area.draw(&Text::new(text.to_owned(), place, style))
                .map_err(failed)
        };
        let centre = |pos| font(13.0).pos(Pos::new(pos, VPos::Center));
        let middle = font(17.0).pos(Pos::new(HPos::Center, VPos::Center));
        write(title, (SIZE.0 as i32 / 2, 18), middle)?;
        let mut x = left;
        for (index, part) in parts.iter().enumerate() {
            let colour = COLOURS[(index + 1) % COLOURS.len()];
            area.draw(&Rectangle::new([(x, 38), (x + 12, 50)], colour.filled()))
                .map_err(failed)?;
            write(part, (x + 18, 44), centre(HPos::Left))?;
            x += 34 + 6 * part.len() as i32;
        }
        for (index, bar) in bars.iter().enumerate() {
            let y = top + step * index as i32;
            write(&bar.name, (left - 8, y + height / 2), centre(HPos::Right))?;
            let mut from = 0u64;
            for (index, part) in bar.parts.iter().enumerate() {
                let place = |n: u64| left + (n as f64 / most as f64 * width).round() as i32;
                let colour = COLOURS[(index + 1) % COLOURS.len()];
                let corners = [(place(from), y), (place(from + part), y + height)];
                if *part > 0 {
                    area.draw(&Rectangle::new(corners, colour.filled()))
                        .map_err(failed)?;
                }
                from += part;
            }
            let end = left + (from as f64 / most as f64 * width).round() as i32;
            let sum = format!("{} {unit}", short(from as f64));
            write(&sum, (end + 6, y + height / 2), centre(HPos::Left))?;
        }
        area.present().map_err(failed)?;
    }
    Ok(Some(inked(&text)))
}

fn failed(error: impl std::fmt::Display) -> anyhow::Error {
    anyhow!("a plot cannot be drawn: {error}")
}

/// With the reader's ink.
fn inked(text: &str) -> String {
    let text = text.replace(INK_TEXT, "currentColor");
    let end = text.find('>').map_or(0, |end| end + 1);
    let mut text = format!("{}{INK_STYLE}{}", &text[..end], &text[end..]);
    if !text.ends_with('\n') {
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_on_axes() {
        let numbers = [1.0, 64.0, 1500.0, 16_777_280.0, 2e9].map(short);
        assert_eq!(numbers, ["1", "64", "1.5 k", "16.8 M", "2 G"]);
    }

    /// No ground of their own, and ink that changes with the reader's.
    #[test]
    fn plots_suit_light_and_dark() -> Result<()> {
        let points = vec![(1, 5), (64, 300)];
        let series = [Series {
            name: "once".into(),
            points,
        }];
        let bar = Bar {
            name: "lazy".into(),
            parts: vec![0, 5],
        };
        let plots = [
            lines("a", ("vCPUs", "instructions"), Axis::Linear, &series)?,
            bars("b", "lines", &["unmap", "faults"], &[bar])?,
        ];
        for plot in plots {
            let plot = plot.unwrap();
            assert!(plot.contains("prefers-color-scheme: dark"));
            assert!(plot.contains("currentColor") && !plot.contains(INK_TEXT));
            assert!(!plot.contains("#FFFFFF"));
        }
        assert!(lines("", ("", ""), Axis::Logarithmic, &[])?.is_none());
        assert!(bars("", "", &[], &[])?.is_none());
        Ok(())
    }
}
