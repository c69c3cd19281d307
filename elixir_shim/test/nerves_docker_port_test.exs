defmodule NervesDockerPortTest do
  use ExUnit.Case, async: true

  doctest NervesDockerPort
end
