// SPDX-License-Identifier: Apache-2.0
// A drawing of quantities over time: stacked areas and lines, as one SVG file that needs nothing else.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

namespace zse_cli {

/// Values at the chart's times, in bytes.
struct Series {
    std::string name;
    std::vector<double> values;
};

struct Chart {
    std::string title;
    std::string subtitle;
    std::vector<double> times;  ///< seconds, rising
    std::vector<Series> areas;  ///< stacked, the first at the bottom
    std::vector<Series> lines;
    std::size_t dashed = 0;  ///< of the lines, so many first ones are bounds and drawn dashed
};

/// The text of an SVG document. Colours follow the reader's preference for light or dark.
std::string svg(const Chart& chart);

}  // namespace zse_cli
