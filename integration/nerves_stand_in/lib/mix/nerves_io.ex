defmodule Mix.Nerves.IO do
  @moduledoc false

  @spec nerves_env_info() :: :ok
  def nerves_env_info do
    Mix.shell().info([
      :green,
      """

      Nerves environment
        MIX_TARGET:   #{Mix.target()}
        MIX_ENV:      #{Mix.env()}
      """,
      :reset
    ])
  end

  @spec shell_info(String.t(), String.t(), atom()) :: :ok
  def shell_info(header, text \\ "", whose \\ :nerves) do
    Mix.shell().info([:inverse, "|#{whose}| #{header}", :reset])
    Mix.shell().info(text)
  end
end
