defmodule NervesDockerPort.Command do
  @moduledoc """
  Finds the program that is the helper. How Mix talks to it is the business of other modules.

  The first of these is used:

    1. the environment variable `NERVES_DOCKER_PORT_COMMAND`, split as a shell would
       (`"/opt/venv/bin/python -m nerves_docker_port"`);
    2. `config :nerves_docker_port, command: ["/opt/venv/bin/python", "-m", "nerves_docker_port"]`;
    3. the helper that this package carries in `priv/python`, run by the `python3` on the PATH.

  The word `port` is added to the command.

  The first `python3` may be too old (macOS), or may be the shim of a version manager that has no version set. Then the
  helper ends before it says hello, and the `alternatives/1` are tried: every other `python3` on the PATH, then
  `python3.14` down to `python3.10`, also in the directories of Homebrew and MacPorts.

  The carried helper runs isolated (`-I -S`), so `PYTHONPATH`, the working directory and other Python packages do not
  change it. It runs in UTF-8 mode with any locale. Python stores its bytecode beside the source if it may write there.
  """

  @enforce_keys [:executable, :arguments, :origin]
  defstruct [:executable, :arguments, :origin]

  @typedoc """
  A program, its arguments, and the origin of the command: the carried helper, the variable, or the configuration.
  """
  @type t :: %__MODULE__{
          executable: Path.t(),
          arguments: [String.t()],
          origin: :packaged | :environment | :config
        }

  @variable "NERVES_DOCKER_PORT_COMMAND"
  @op "port"

  # The directories of Homebrew on Apple silicon, of Homebrew on Intel (and of programs installed by hand), and of
  # MacPorts.
  @package_managers ["/opt/homebrew/bin", "/usr/local/bin", "/opt/local/bin"]

  @pythons ["python3" | Enum.map(14..10//-1, &"python3.#{&1}")]

  @doc """
  Returns the command that opens the port. `packaged` is the directory of the helper that this package carries.

  Raises `Mix.Error` with a remedy if the program is not found, the variable or the configuration is malformed, or the
  package carries no helper.
  """
  @spec resolve(Path.t()) :: t()
  def resolve(packaged \\ packaged_directory()) do
    case {System.get_env(@variable, ""), Application.get_env(:nerves_docker_port, :command)} do
      {"", nil} -> packaged(packaged)
      {"", words} -> override(words, :config)
      {text, _words} -> text |> split() |> override(:environment)
    end
  end

  @doc """
  Returns commands with the other Pythons that may run the carried helper, in the order in which to try them.

  There are none if the environment or the configuration names the command.
  """
  @spec alternatives(t()) :: [t()]
  def alternatives(%__MODULE__{origin: :packaged} = command) do
    for python <- pythons(), identity(python) != identity(command.executable) do
      %{command | executable: python}
    end
  end

  def alternatives(%__MODULE__{}), do: []

  @doc """
  Makes `resolve/1` return this command for the rest of this run of Mix, because its Python works.
  """
  @spec remember(t()) :: :ok
  def remember(%__MODULE__{executable: python}) do
    Application.put_env(:nerves_docker_port, :python, python)
  end

  @doc """
  Returns a text for an error that says how to get a suitable Python. `packaged` is the directory of the carried helper.
  """
  @spec python_hint(Path.t()) :: String.t()
  def python_hint(packaged \\ packaged_directory()) do
    """
    The helper needs Python 3.10 or later, as `python3` on the PATH:

      Debian, Ubuntu   sudo apt-get install python3
      macOS            brew install python

    To use one that is somewhere else, name it, for example

      export #{@variable}=#{quoted("/usr/bin/python3.12 -I -S -X utf8 " <> to_shell([packaged]))}
    """
  end

  @doc """
  Returns a text for an error that says how to get the carried helper of this release.

  `sources` is the directory of this package's `mix.exs`. A release carries the helper. In a git checkout the helper has
  to be made from the Python sources, which are beside this directory, unless Mix has fetched only a part of the
  repository (`sparse:`).
  """
  @spec renewal(Path.t()) :: String.t()
  def renewal(sources \\ sources()) do
    root = Path.dirname(sources)

    cond do
      File.regular?(Path.join(root, "python/package_helper.py")) ->
        """
        In a git checkout, this command makes the helper (it needs Python with pip, and the network):

            make -C #{quoted(root)} package
        """

      Path.basename(sources) == "elixir_shim" ->
        """
        Mix has fetched only the directory elixir_shim of the repository, and the helper is made from the rest of it. In \
        your mix.exs, write `subdir: "elixir_shim"` instead of `sparse: "elixir_shim"`. Then:

            mix deps.get
            make -C #{quoted(root)} package
        """

      true ->
        """
        Fetch both anew:

            mix deps.clean nerves_docker_port && mix deps.get
        """
    end
  end

  # This package is a dependency of the project that Mix runs in. In its own tests it is the project itself.
  defp sources, do: Map.get(Mix.Project.deps_paths(), :nerves_docker_port, File.cwd!())

  @doc """
  Returns the program and the arguments for another operation of the same helper.

  ## Examples

      iex> command = %NervesDockerPort.Command{executable: "/bin/h", arguments: ["-I", "port"], origin: :config}
      iex> NervesDockerPort.Command.words(command, ["shell", "/tmp/spec"])
      ["/bin/h", "-I", "shell", "/tmp/spec"]
  """
  @spec words(t(), [String.t()]) :: [String.t()]
  def words(%__MODULE__{executable: executable, arguments: arguments}, operation) do
    [executable | Enum.drop(arguments, -1)] ++ operation
  end

  @doc ~S"""
  Returns a line that a POSIX shell splits into these words.

  ## Examples

      iex> NervesDockerPort.Command.to_shell(["/bin/h", "it's", "$HOME"])
      "/bin/h 'it'\\''s' '$HOME'"
  """
  @spec to_shell([String.t()]) :: String.t()
  def to_shell(words), do: Enum.map_join(words, " ", &quoted/1)

  defp quoted(word) do
    if word =~ ~r{\A[A-Za-z0-9_@%+:,./-]+\z} do
      word
    else
      "'" <> String.replace(word, "'", "'\\''") <> "'"
    end
  end

  @doc """
  Returns the command as one line for an error. The line is not quoted for a shell.
  """
  @spec to_line(t()) :: String.t()
  def to_line(%__MODULE__{executable: executable, arguments: arguments}) do
    Enum.join([executable | arguments], " ")
  end

  defp packaged(directory) do
    main = Path.join(directory, "__main__.py")
    if not File.regular?(main), do: not_packaged(main)

    %__MODULE__{
      executable: remembered() || first_python() || no_python(directory),
      arguments: ["-I", "-S", "-X", "utf8", directory, @op],
      origin: :packaged
    }
  end

  defp remembered do
    python = Application.get_env(:nerves_docker_port, :python)
    if python != nil and File.regular?(python), do: python
  end

  # On most machines `python3` is on the PATH, so no other directory is searched.
  defp first_python, do: System.find_executable("python3") || List.first(pythons())

  defp pythons do
    directories = String.split(System.get_env("PATH", ""), ":", trim: true) ++ @package_managers

    for(name <- @pythons, directory <- directories, do: Path.join(directory, name))
    |> Enum.filter(&System.find_executable/1)
    |> Enum.uniq_by(&identity/1)
  end

  # Two paths with the same name and inode are one program, because `/bin` is often a link to `/usr/bin`. The name has
  # to be the same, because the shims of a version manager are one file with many names.
  defp identity(path) do
    case File.stat(path) do
      {:ok, stat} -> {Path.basename(path), stat.major_device, stat.inode}
      {:error, _reason} -> path
    end
  end

  @spec no_python(Path.t()) :: no_return()
  defp no_python(packaged) do
    Mix.raise("There is no python3 on the PATH.\n\n" <> python_hint(packaged))
  end

  defp packaged_directory, do: Application.app_dir(:nerves_docker_port, ["priv", "python"])

  @spec not_packaged(Path.t()) :: no_return()
  defp not_packaged(main) do
    Mix.raise("""
    The helper is missing: there is no #{main}.

    #{renewal()}
    """)
  end

  defp split(text) do
    OptionParser.split(text)
  rescue
    # For a quote that is not closed, OptionParser raises a plain RuntimeError.
    error in RuntimeError -> Mix.raise("#{@variable} cannot be read: #{Exception.message(error)}")
  end

  defp override([program | arguments] = words, origin) do
    if Enum.all?(words, &is_binary/1) do
      %__MODULE__{
        executable: find(program, origin),
        arguments: arguments ++ [@op],
        origin: origin
      }
    else
      bad_override(words, origin)
    end
  end

  defp override(words, origin), do: bad_override(words, origin)

  @spec bad_override(term(), :environment | :config) :: no_return()
  defp bad_override(words, origin) do
    Mix.raise("#{origin_name(origin)} has to hold a program and its arguments, but holds #{inspect(words)}.")
  end

  defp find(program, origin) do
    found =
      if String.contains?(program, "/") do
        path = Path.expand(program)
        if File.regular?(path), do: path
      else
        System.find_executable(program)
      end

    found ||
      Mix.raise("#{origin_name(origin)} names #{inspect(program)}, and there is no such program.")
  end

  defp origin_name(:environment), do: "The environment variable #{@variable}"
  defp origin_name(:config), do: "`config :nerves_docker_port, command: ...`"
end
