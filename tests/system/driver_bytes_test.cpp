// SPDX-License-Identifier: Apache-2.0
// What drivers take is remembered by GPU and version, and a damaged record is as good as none.
// rows: 35
#include <zse/system/driver_bytes.hpp>

#include <gtest/gtest.h>
#include <support/temporary_directory.hpp>

namespace {

using zse::system::DriverBytes;
using zse::system::DriverRecords;

TEST(DriverRecords, KeepTheLatestOfEachGpu) {
    const support::TemporaryDirectory directory;
    const DriverRecords records(directory.path() / "made/gpus");
    EXPECT_FALSE(records.find("NVIDIA H200"));
    records.store("NVIDIA H200", {500, 7});
    records.store("NVIDIA L4", {300, 5});
    records.store("NVIDIA H200", {600, 8});
    EXPECT_EQ(records.find("NVIDIA H200"), (DriverBytes{600, 8}));
    EXPECT_EQ(records.find("NVIDIA L4"), (DriverBytes{300, 5}));
    EXPECT_FALSE(records.find("NVIDIA H20"));
    EXPECT_EQ(std::distance(std::filesystem::directory_iterator(directory.path() / "made"), {}), 1)
        << "nothing is left beside the file";
}

TEST(DriverRecords, DamagedLinesAreMeasuredAgain) {
    const support::TemporaryDirectory directory;
    const auto file = directory.path() / "gpus";
    std::ofstream(file) << "A\t" << zse::version << "\t12\nB\t0.0.0\t1\t2\n\nC\t" << zse::version
                        << "\t-1\t2\nD\t" << zse::version << "\t3\t4";
    const DriverRecords records(file);
    for (const char* gpu : {"A", "B", "C"}) EXPECT_FALSE(records.find(gpu)) << gpu;
    EXPECT_EQ(records.find("D"), (DriverBytes{3, 4}));
    records.store("A", {5, 6});
    EXPECT_EQ(records.find("A"), (DriverBytes{5, 6}));
    EXPECT_EQ(records.find("D"), (DriverBytes{3, 4}));
}

TEST(DriverRecords, APlaceThatCannotBeWrittenIsNoError) {
    const DriverRecords records("/proc/none/gpus");
    records.store("NVIDIA H200", {1, 2});
    EXPECT_FALSE(records.find("NVIDIA H200"));
}

}  // namespace
