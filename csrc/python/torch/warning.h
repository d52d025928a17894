// Warns at the line that a user wrote, however many frames of this package and of torch lie between.
#pragma once

#include <string>

namespace clr {

// Gives a UserWarning. Runs Python. Throws if a warning filter turns the warning into an error.
void warn_user(const std::string& message);

}  // namespace clr
