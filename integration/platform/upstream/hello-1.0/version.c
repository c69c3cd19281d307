#include "mini.h"

const char mini_version[] = "hello 1.0";
