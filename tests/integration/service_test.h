// The fixture of the tests of the service.
#ifndef SPARSE_FFN_TESTS_INTEGRATION_SERVICE_TEST_H_
#define SPARSE_FFN_TESTS_INTEGRATION_SERVICE_TEST_H_

#include <gtest/gtest.h>

#include "tests/integration/server_fixture.h"

namespace sparse_ffn {

// Serves from the start.
class ServiceTest : public ServerFixture {
 protected:
  void SetUp() override {
    ASSERT_NE(server_, nullptr);
    Serve();
  }
};

}  // namespace sparse_ffn

#endif  // SPARSE_FFN_TESTS_INTEGRATION_SERVICE_TEST_H_
