// SPDX-License-Identifier: Apache-2.0
// Drawing a chart as SVG.
#include "chart.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <string_view>
#include <vector>

namespace zse_cli {
namespace {

constexpr double width = 960, left = 76, right = 250, top = 70, plot_height = 340;
constexpr double plot_width = width - left - right;
/// A point for every pixel across is all that can be seen.
constexpr std::size_t most_points = 634;

/// Hues that stay apart on white and on black, also for readers who see red and green alike: the palette of Okabe and
/// Ito (Color Universal Design, 2008), and four between them.
constexpr std::array<std::string_view, 11> colours{"#0072b2", "#e69f00", "#009e73", "#cc79a7",
                                                   "#56b4e9", "#d55e00", "#b8a90c", "#7f7fd1",
                                                   "#8c6d46", "#5aa469", "#888888"};

/// Bytes, in the decimal unit that gives the axis short numbers.
struct Unit {
    double bytes;
    std::string_view name;
};

Unit unit_of(double most) {
    if (most >= 1e9) return {1e9, "GB"};
    if (most >= 1e6) return {1e6, "MB"};
    if (most >= 1e3) return {1e3, "kB"};
    return {1, "B"};
}

/// The step of 1, 2 or 5 times a power of ten that cuts a range into at most `parts`.
double tick_step(double range, double parts) {
    const double power = std::pow(10, std::floor(std::log10(range / parts)));
    for (const double factor : {1.0, 2.0, 5.0}) {
        if (range <= factor * power * parts) return factor * power;
    }
    return 10 * power;
}

std::string escaped(std::string_view text) {
    std::string safe;
    for (const char c : text) {
        switch (c) {
            case '<': safe += "&lt;"; break;
            case '>': safe += "&gt;"; break;
            case '&': safe += "&amp;"; break;
            case '"': safe += "&quot;"; break;
            default:
                safe += static_cast<unsigned char>(c) < ' ' ? ' ' : c;  // XML knows no control characters
        }
    }
    return safe;
}

/// Where times and bytes lie in the drawing.
struct Scale {
    double seconds;
    double bytes;

    [[nodiscard]] double x(double t) const { return left + plot_width * t / seconds; }
    [[nodiscard]] double y(double b) const { return top + plot_height * (1 - b / bytes); }
};

/// Indices of the points that are drawn: all, or evenly chosen ones with the last.
std::vector<std::size_t> drawn(std::size_t count) {
    std::vector<std::size_t> points;
    const std::size_t step = std::max<std::size_t>(1, (count + most_points - 1) / most_points);
    for (std::size_t i = 0; i < count; i += step) points.push_back(i);
    if (count != 0 && points.back() != count - 1) points.push_back(count - 1);
    return points;
}

std::string points_of(const Scale& scale, const std::vector<double>& times, const std::vector<double>& values,
                      const std::vector<std::size_t>& points, bool backwards) {
    std::string path;
    for (std::size_t i = 0; i < points.size(); ++i) {
        const std::size_t p = points[backwards ? points.size() - 1 - i : i];
        path +=
            fmt::format("{}{:.1f},{:.1f}", path.empty() ? "" : " ", scale.x(times[p]), scale.y(values[p]));
    }
    return path;
}

std::string axes(const Scale& scale, const Unit& unit) {
    std::string out;
    const double bytes_step = tick_step(scale.bytes / unit.bytes, 6);
    for (double tick = 0; tick <= scale.bytes / unit.bytes * 1.0001; tick += bytes_step) {
        const double y = scale.y(tick * unit.bytes);
        out += fmt::format("<line class=\"grid\" x1=\"{0}\" y1=\"{1:.1f}\" x2=\"{2}\" y2=\"{1:.1f}\"/>\n",
                           left, y, left + plot_width);
        out += fmt::format("<text class=\"tick\" x=\"{}\" y=\"{:.1f}\" text-anchor=\"end\">{:.6g}</text>\n",
                           left - 8, y + 4, tick);
    }
    const double time_step = tick_step(scale.seconds, 8);
    const double base = top + plot_height;
    for (double tick = 0; tick <= scale.seconds * 1.0001; tick += time_step) {
        const double x = scale.x(tick);
        out += fmt::format("<line class=\"axis\" x1=\"{0:.1f}\" y1=\"{1}\" x2=\"{0:.1f}\" y2=\"{2}\"/>\n", x,
                           base, base + 5);
        out +=
            fmt::format("<text class=\"tick\" x=\"{:.1f}\" y=\"{}\" text-anchor=\"middle\">{:.6g}</text>\n",
                        x, base + 20, tick);
    }
    out += fmt::format("<path class=\"axis\" d=\"M{0} {1}V{2}H{3}\"/>\n", left, top, base, left + plot_width);
    out += fmt::format("<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">time in seconds</text>\n",
                       left + plot_width / 2, base + 42);
    out += fmt::format(
        "<text transform=\"translate(20 {}) rotate(-90)\" text-anchor=\"middle\">memory in {}</text>\n",
        top + plot_height / 2, unit.name);
    return out;
}

double most_of(const std::vector<double>& values) {
    return values.empty() ? 0 : *std::max_element(values.begin(), values.end());
}

std::string shown(double bytes) {
    const Unit unit = unit_of(bytes);
    return fmt::format("{:.{}f} {}", bytes / unit.bytes, unit.bytes == 1 ? 0 : 2, unit.name);
}

constexpr std::string_view style = R"(<style>
:root { color-scheme: light dark }
text { font: 13px system-ui, sans-serif; fill: #1b1b1f }
.title { font-size: 17px; font-weight: 600 }
.tick, .quiet { fill: #5c5c66; font-size: 12px }
.page { fill: #ffffff }
.grid { stroke: #e3e3e8 }
.axis { stroke: #8a8a94; fill: none }
.area { stroke: none; fill-opacity: .85 }
.line { fill: none; stroke: #1b1b1f; stroke-width: 1.8 }
.bound { stroke-dasharray: 7 5 }
@media (prefers-color-scheme: dark) {
text { fill: #ececf1 }
.tick, .quiet { fill: #a9a9b4 }
.page { fill: #17171b }
.grid { stroke: #34343c }
.line { stroke: #ececf1 }
}
</style>
)";

}  // namespace

std::string svg(const Chart& chart) {
    std::vector<double> sum(chart.times.size(), 0.0);
    double most = 0;
    for (const Series& area : chart.areas) {
        for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += area.values[i];
    }
    most = most_of(sum);
    for (const Series& line : chart.lines) most = std::max(most, most_of(line.values));
    // A tick above the highest point; a range that is empty still has a scale.
    const Unit unit = unit_of(most);
    const double step = tick_step(std::max(most / unit.bytes, 1e-9), 6);
    const double seconds = chart.times.empty() ? 1 : std::max(chart.times.back(), 1e-3);
    const Scale scale{seconds,
                      std::max(std::ceil(most / unit.bytes / step * 1.001), 1.0) * step * unit.bytes};
    const double rows = static_cast<double>(chart.areas.size() + chart.lines.size());
    const double height = std::max(top + plot_height + 60, top + 20 + 20 * rows);

    std::string out = fmt::format(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {0} {1}\" width=\"{0}\" height=\"{1}\" "
        "role=\"img\" aria-label=\"{2}\">\n<title>{2}</title>\n",
        width, height, escaped(chart.title));
    out += style;
    out += fmt::format("<rect class=\"page\" width=\"{}\" height=\"{}\"/>\n", width, height);
    out += fmt::format("<text class=\"title\" x=\"{}\" y=\"30\">{}</text>\n", left, escaped(chart.title));
    out += fmt::format("<text class=\"quiet\" x=\"{}\" y=\"50\">{}</text>\n", left, escaped(chart.subtitle));
    out += axes(scale, unit);

    const std::vector<std::size_t> points = drawn(chart.times.size());
    const double key = left + plot_width + 22;
    double row = top + 14 + 20 * (rows - 1);  // areas from the bottom up, as they are stacked
    std::vector<double> below(chart.times.size(), 0.0);
    for (std::size_t a = 0; a < chart.areas.size(); ++a) {
        std::vector<double> above = below;
        for (std::size_t i = 0; i < above.size(); ++i) above[i] += chart.areas[a].values[i];
        const std::string_view colour = colours[a % colours.size()];
        out +=
            fmt::format("<polygon class=\"area\" fill=\"{}\" points=\"{} {}\"><title>{}</title></polygon>\n",
                        colour, points_of(scale, chart.times, above, points, false),
                        points_of(scale, chart.times, below, points, true), escaped(chart.areas[a].name));
        out += fmt::format(
            "<rect x=\"{}\" y=\"{}\" width=\"14\" height=\"12\" fill=\"{}\" fill-opacity=\".85\"/>\n", key,
            row - 10, colour);
        out += fmt::format("<text x=\"{}\" y=\"{}\">{} <tspan class=\"quiet\">{}</tspan></text>\n", key + 22,
                           row, escaped(chart.areas[a].name), shown(most_of(chart.areas[a].values)));
        below = std::move(above);
        row -= 20;
    }
    for (std::size_t l = 0; l < chart.lines.size(); ++l) {
        const char* kind = l < chart.dashed ? "line bound" : "line";
        out += fmt::format("<polyline class=\"{}\" points=\"{}\"><title>{}</title></polyline>\n", kind,
                           points_of(scale, chart.times, chart.lines[l].values, points, false),
                           escaped(chart.lines[l].name));
        out += fmt::format("<path class=\"{}\" d=\"M{} {}h14\"/>\n", kind, key, row - 4);
        out += fmt::format("<text x=\"{}\" y=\"{}\">{} <tspan class=\"quiet\">{}</tspan></text>\n", key + 22,
                           row, escaped(chart.lines[l].name), shown(most_of(chart.lines[l].values)));
        row -= 20;
    }
    return out + "</svg>\n";
}

}  // namespace zse_cli
