defmodule NervesDockerPort.Helper do
  @moduledoc """
  Starts the helper, sends it a request, and waits for the outcome.

  Meanwhile it shows the helper's events and asks the user its questions. It raises every failure as a `Mix.Error`. It
  does not know how the helper is found (`NervesDockerPort.Command`) or what a request contains
  (`NervesDockerPort.Request`).
  """

  alias NervesDockerPort.{CI, Command, Connection, Console, Protocol}

  @typedoc "An operation of the helper."
  @type op :: :build | :archive | :clean | :shell | :run | :copy | :doctor | :volumes | :report

  # The variables that decide which engine is used and how. The helper's nerves_docker_port/engine/endpoint.py describes
  # each, and one of its tests compares the two lists.
  @engine_variables ~w(
    DOCKER_HOST DOCKER_CONTEXT DOCKER_CONFIG HOME
    DOCKER_TLS_VERIFY DOCKER_TLS DOCKER_CERT_PATH SSL_CERT_FILE SSL_CERT_DIR
    HTTP_PROXY http_proxy HTTPS_PROXY https_proxy NO_PROXY no_proxy
    DOCKER_API_VERSION DOCKER_CUSTOM_HEADERS DOCKER_DEFAULT_PLATFORM
    DOCKER_BUILDKIT BUILDX_BUILDER SSH_AUTH_SOCK
  )

  # The milliseconds that a helper waits for the next request. After a build, Nerves does some work of its own before it
  # asks for the archive.
  @park_timeout 60_000

  # The milliseconds from the start of Python to the first frame. Usually it takes 50; with a slow disk it may take
  # seconds.
  @hello_timeout 30_000

  # The exit status of the helper if Python is too old. The helper has then printed an error.
  @python_too_old 78

  @doc """
  Runs the operation `op` in the helper, and returns the value of its outcome (see `docs/protocol.md`).

  `args` are the arguments of the request, or a function that makes them, which is called while the helper starts. This
  function returns when the operation has ended; a build takes hours. If the calling process dies, the helper cancels
  the operation and ends.

  After a build the helper is kept for a minute, because `mix nerves.artifact` asks for the archive next, and to start
  another helper takes as long as the rest of an archive. The helper is kept only for the calling process, and ends with
  it.

  Options:

    * `:command` - a `NervesDockerPort.Command`, in place of the one that the environment and the configuration name
    * `:hello_timeout` - the milliseconds to wait for the helper's first message (30 000)
    * `:park_timeout` - the milliseconds that the helper is kept after a build (60 000)
    * `:dot_every` - the milliseconds of silence before a dot is printed (10 000)

  Raises `Mix.Error` if the helper cannot be started, breaks the protocol or dies, or if the outcome is an error.
  """
  @spec request(op(), map() | (() -> map()), keyword()) :: term()
  def request(op, args, options \\ []) do
    command = Keyword.get_lazy(options, :command, &Command.resolve/0)
    conversation = parked(command) || start(command)

    args = or_close(conversation, fn -> arguments(op, args) end)

    case greeted(conversation, Keyword.get(options, :hello_timeout, @hello_timeout)) do
      {:ok, conversation} ->
        conversation = %{conversation | id: conversation.id + 1}
        outcome = or_close(conversation, fn -> converse(conversation, op, args, options) end)

        if op == :build and match?({:ok, _value}, outcome) do
          park(conversation, Keyword.get(options, :park_timeout, @park_timeout))
        else
          Connection.close(conversation.connection)
        end

        value(outcome, op, args)

      {:error, message} ->
        fail(message, nil, op, args)
    end
  end

  defp arguments(op, args) when is_function(args) do
    args.()
  rescue
    error in Mix.Error ->
      fail(error.message, nil, op, %{})
  end

  defp arguments(_op, args), do: args

  defp value({:ok, value}, op, args) do
    if ci?(op), do: CI.passed(app(args), value)
    value
  end

  defp value({:error, message}, op, args), do: fail(message, nil, op, args)
  defp value({:failed, message, cause}, op, args), do: fail(message, cause, op, args)

  @spec fail(String.t(), map() | nil, op(), term()) :: no_return()
  defp fail(message, cause, op, args) do
    if ci?(op), do: CI.failed(app(args), message, cause)
    Mix.raise(message)
  end

  # Only these have an annotation and a summary in a CI. The other operations are run by a person.
  defp ci?(op), do: op in [:build, :archive]

  defp app(%{package: %{app: app}}), do: app
  defp app(_args), do: nil

  # Calls the function. If it raises, exits or throws, the connection is closed, so that the helper ends.
  defp or_close(conversation, function) do
    function.()
  catch
    kind, reason ->
      if conversation.connection != nil, do: Connection.close(conversation.connection)
      :erlang.raise(kind, reason, __STACKTRACE__)
  end

  defp park(conversation, timeout) do
    :ok = Connection.park(conversation.connection, timeout)
    Process.put(__MODULE__, {conversation, engine_variables()})
  end

  # A kept helper has the environment with which it was started. After a build, Nerves sets many variables, for example
  # those of the compiler. The helper can be used again if the variables that decide about the engine are the same.
  defp engine_variables, do: Map.take(System.get_env(), @engine_variables)

  defp parked(command) do
    variables = engine_variables()

    case Process.delete(__MODULE__) do
      {%{command: ^command} = conversation, ^variables} ->
        if Connection.take_up(conversation.connection) == :ok, do: conversation

      {conversation, _other_variables} ->
        Connection.close(conversation.connection)
        nil

      nil ->
        nil
    end
  end

  # Starts a helper. If it cannot be started, this is no error yet: `greet/2` reports it, and then another Python is
  # tried.
  defp start(command) do
    case Connection.open(command) do
      {:ok, connection} -> %{connection: connection, command: command, id: 0, reason: nil}
      {:error, reason} -> %{connection: nil, command: command, id: 0, reason: reason}
    end
  end

  # A helper says hello only once, before its first request.
  defp greeted(%{id: id} = conversation, _timeout) when id > 0, do: {:ok, conversation}

  defp greeted(conversation, timeout) do
    case or_close(conversation, fn -> greet(conversation, timeout) end) do
      :ok ->
        {:ok, conversation}

      {:error, message} ->
        Connection.close(conversation.connection)
        {:error, message}

      {:no_python, failure} ->
        another(Command.alternatives(conversation.command), timeout, [
          {conversation.command, failure}
        ])
    end
  end

  # Tries the other Pythons. They are looked for only here, because on most machines the first one works.
  defp another([], _timeout, failures), do: {:error, no_hello(Enum.reverse(failures))}

  defp another([command | rest], timeout, failures) do
    conversation = start(command)

    case or_close(conversation, fn -> greet(conversation, timeout) end) do
      :ok ->
        :ok = Command.remember(command)
        {:ok, conversation}

      {:no_python, failure} ->
        another(rest, timeout, [{command, failure} | failures])

      {:error, _message} ->
        Connection.close(conversation.connection)
        another(rest, timeout, [{command, :silent} | failures])
    end
  end

  defp converse(%{connection: connection, id: id}, op, args, options) do
    :ok = Connection.send_message(connection, {:request, id, op, args})
    console = Console.new(Keyword.take(options, [:dot_every]))
    {outcome, console} = listen(connection, id, console)
    _console = Console.finish(console)
    outcome
  end

  # `:no_python` means that the program did not start, or ended before it said hello.
  defp greet(%{connection: nil, reason: reason}, _timeout), do: {:no_python, {:not_started, reason}}

  defp greet(%{connection: connection, command: command}, timeout) do
    version = Protocol.version()

    case Connection.next(connection, timeout) do
      {:message, {:hello, %{protocol: ^version} = hello}} ->
        warn_of_another_release(hello, command)

      {:message, {:hello, %{protocol: other} = hello}} ->
        mismatch(other, hello, command)

      {:message, {:done, 0, {:error, error}}} ->
        failure(error)

      {:message, other} ->
        {:error, not_the_helper("It said " <> excerpt(other), command)}

      {:malformed, reason} ->
        {:error, not_the_helper("It sent " <> reason, command)}

      {:exited, status} ->
        Connection.close(connection)
        {:no_python, {:exited, status}}

      :timeout ->
        {:error, silent(timeout, command)}
    end
  end

  defp listen(connection, id, console) do
    case Connection.next(connection, Console.patience(console)) do
      {:message, {:event, ^id, event}} ->
        case Console.show(console, event) do
          {:ok, console} -> listen(connection, id, console)
          :unknown -> {unknown({:event, id, event}), console}
        end

      {:message, {:ask, ^id, ref, {:yes_no, text, default}}}
      when is_integer(ref) and is_binary(text) and is_boolean(default) ->
        {answer, console} = Console.yes?(console, text, default)
        :ok = Connection.send_message(connection, {:answer, ref, answer})
        listen(connection, id, console)

      {:message, {:done, ^id, {:ok, value}}} ->
        {{:ok, value}, console}

      # The helper answers with the id 0 if it could not read the id of the request.
      {:message, {:done, of, {:error, error}}} when of in [0, id] ->
        {failed(error), console}

      {:message, other} ->
        {unknown(other), console}

      {:malformed, reason} ->
        {{:error, "The helper sent #{reason}. " <> update_both()}, console}

      {:exited, status} ->
        {{:error, died(status)}, console}

      :timeout ->
        listen(connection, id, Console.idle(console))
    end
  end

  @doc """
  Returns the text of an error of the helper: what failed, and what to do.

  ## Examples

      iex> NervesDockerPort.Helper.words(%{message: "No engine.", hint: "Start one."})
      "No engine.\\n\\nStart one."
  """
  @spec words(%{:message => binary(), optional(atom()) => term()}) :: String.t()
  def words(%{message: message} = error) do
    case Map.get(error, :hint) do
      hint when is_binary(hint) and hint != "" ->
        Console.printable(String.trim_trailing(message) <> "\n\n" <> hint)

      _none ->
        Console.printable(message)
    end
  end

  # Adds the cause that the helper has found, which a CI shows.
  defp failed(error) do
    with {:error, words} <- failure(error),
         do: {:failed, words, if(is_map(error), do: Map.get(error, "cause"))}
  end

  defp failure(%{message: message} = error) when is_binary(message), do: {:error, words(error)}
  defp failure(error), do: unknown({:error, error})

  # Two releases with the same protocol understand each other, but they were not tested together. So this only warns.
  defp warn_of_another_release(hello, command) do
    ours = NervesDockerPort.version()

    case Map.get(hello, :version) do
      ^ours ->
        :ok

      theirs ->
        Mix.shell().info([
          :yellow,
          Console.printable(
            "The helper is release #{excerpt(theirs)} of nerves_docker_port, and the Mix side release #{inspect(ours)}. " <>
              "They should be the same. " <> another_release(command)
          ),
          :reset
        ])
    end
  end

  defp another_release(%Command{origin: :packaged}) do
    "The helper comes with the Mix side, so one of the two is left over. " <> Command.renewal()
  end

  defp another_release(command), do: check(command)

  defp mismatch(other, hello, command) do
    ours = Protocol.version()

    remedy =
      cond do
        is_integer(other) and other > ours ->
          "The Mix side is the older one. Update it:\n\n    mix deps.update nerves_docker_port"

        command.origin == :packaged ->
          "The helper is the older one, although it comes with the Mix side. " <> Command.renewal()

        true ->
          "The helper is the older one. " <> check(command)
      end

    {:error,
     """
     The helper speaks version #{inspect(other)} of the port protocol, and the Mix side version #{ours}.
     (helper #{excerpt(Map.get(hello, :version))}, Mix side #{inspect(NervesDockerPort.version())})

     #{remedy}
     """}
  end

  defp not_the_helper(what, command) do
    """
    The program that should be the helper did not say hello. #{what}.

      #{Command.to_line(command)}

    #{check(command)}
    """
  end

  # The error describes in detail how the first Python failed, because it is the one that the user expects to be used.
  defp no_hello([{command, failure} | others]) do
    tried =
      Enum.map(others, fn {other, failure} ->
        "  #{other.executable}: #{failure_words(failure)}\n"
      end)

    """
    #{first_failure(failure, command)}
    #{if tried != [], do: ["\nThese do not run it either:\n\n", tried]}
    #{if failure == {:exited, @python_too_old}, do: Command.python_hint(), else: check(command)}
    """
  end

  defp first_failure({:not_started, reason}, command) do
    """
    The helper cannot be started: #{:file.format_error(reason)}.

      #{Command.to_line(command)}
    """
  end

  defp first_failure({:exited, @python_too_old}, command) do
    "#{command.executable} is older than Python 3.10."
  end

  defp first_failure({:exited, status} = failure, command) do
    """
    The helper ended before it said hello (#{failure_words(failure)}). What it printed is above.

      #{Command.to_line(command)}
    #{if command.origin == :packaged and status in [126, 127], do: shim(command)}
    """
  end

  defp shim(command) do
    """

    #{command.executable} is probably the shim of a version manager (pyenv, asdf, mise), and there is no Python for it here.
    """
  end

  defp failure_words({:not_started, reason}), do: "#{:file.format_error(reason)}"
  defp failure_words({:exited, @python_too_old}), do: "older than Python 3.10"
  defp failure_words({:exited, status}), do: status_words(status)
  defp failure_words(:silent), do: "it said something else than hello, or nothing"

  defp silent(timeout, command) do
    """
    The helper did not say hello within #{timeout / 1000} s.

      #{Command.to_line(command)}

    #{check(command)}
    """
  end

  defp check(%Command{origin: :packaged}), do: Command.python_hint()

  defp check(%Command{origin: :environment}) do
    """
    The command comes from the environment variable NERVES_DOCKER_PORT_COMMAND. Without it, the helper that comes with
    nerves_docker_port is used:

        unset NERVES_DOCKER_PORT_COMMAND
    """
  end

  defp check(%Command{origin: :config}) do
    "The command comes from `config :nerves_docker_port, command: ...`. Remove that line, and the helper that comes with " <>
      "nerves_docker_port is used."
  end

  defp died(status) do
    """
    The helper died before it was done (#{status_words(status)}). #{cause(status)}

    Run the command again: what was built so far is kept, and a container that was left behind is removed first.
    """
  end

  # The kernel sends SIGKILL if memory runs out.
  defp cause(137) do
    "If it was killed because memory ran out, let fewer jobs run at once: " <>
      "`build_runner_opts: [make_args: [\"PARALLEL_JOBS=2\"]]`."
  end

  # These are the exit statuses of a Python program that ends with an error that it has not caught.
  defp cause(status) when status in 1..128 do
    "It failed with a Python error: the last line that it printed above says which. " <>
      "If it does so again, please report it with all that it printed."
  end

  defp cause(_status), do: "What it printed is above."

  # If a signal has ended the program, the port reports 128 plus the signal's number.
  defp status_words(nil), do: "exit status unknown"
  defp status_words(status) when status > 128, do: "exit status #{status}: signal #{status - 128}"
  defp status_words(status), do: "exit status #{status}"

  defp unknown(message) do
    {:error, "The helper said what this version does not know: #{excerpt(message)}. " <> update_both()}
  end

  defp update_both do
    "The Mix side and the helper have to be of one version; " <>
      "`mix deps.update nerves_docker_port` brings both."
  end

  defp excerpt(term), do: inspect(term, limit: 20, printable_limit: 200)
end
