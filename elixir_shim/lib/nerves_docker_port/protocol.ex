defmodule NervesDockerPort.Protocol do
  @moduledoc """
  Encodes and decodes the terms that Mix and the helper exchange. `docs/protocol.md` is the contract.

  This module knows neither ports nor the meaning of a message.
  """

  @version 1
  @max_frame 16 * 1024 * 1024

  # Every atom that the helper may send. `:safe` refuses an atom that is not in the atom table yet. These atoms are
  # literals of this module, so they are in the table as soon as the module is loaded.
  @vocabulary [
    # messages
    ~w(hello event ask done)a,
    # hello
    ~w(protocol version python os_pid)a,
    # events
    ~w(headline log stage started finished progress status warning)a,
    # stages
    ~w(preflight pull build_image create_build make make_system copy clean shell run check_tree)a,
    # progress
    ~w(what current total unit bytes layers files)a,
    # status
    ~w(elapsed tasks done left)a,
    # questions
    ~w(yes_no)a,
    # outcomes
    ~w(ok error code message hint log)a,
    # error codes
    ~w(engine_unreachable engine_permission engine_too_old engine_too_new image_unavailable image_build_failed)a,
    ~w(volume_busy step_failed out_of_memory disk_full no_network no_build_tree artifact_missing cancelled bad_request)a,
    ~w(protocol_mismatch internal)a,
    # values
    ~w(path size sha256 stages removed spec status text json)a,
    [true, false, nil]
  ]

  @doc "Returns the version of the protocol, which the helper's hello has to name."
  @spec version() :: pos_integer()
  def version, do: @version

  @doc "Returns every atom that the helper may send."
  @spec vocabulary() :: [atom()]
  def vocabulary, do: List.flatten(@vocabulary)

  @doc """
  Returns the bytes of one frame, without its length, which the port writes.

  Every term can be encoded, but the helper refuses a frame of more than 16 MiB.

  ## Examples

      iex> NervesDockerPort.Protocol.encode({:cancel, 7})
      <<131, 104, 2, 119, 6, "cancel", 97, 7>>
  """
  @spec encode(term()) :: binary()
  def encode(term), do: :erlang.term_to_binary(term, minor_version: 2)

  @doc """
  Returns the term in one frame, or an error text that says why the frame is malformed.

  This never creates an atom, and it refuses a compressed term and a frame of more than 16 MiB.

  ## Examples

      iex> NervesDockerPort.Protocol.decode(<<131, 97, 7>>)
      {:ok, 7}

      iex> NervesDockerPort.Protocol.decode(<<131, 97, 7, 0>>)
      {:error, "1 byte too many after a term"}
  """
  @spec decode(binary()) :: {:ok, term()} | {:error, String.t()}
  def decode(frame) when byte_size(frame) > @max_frame do
    {:error, "a frame of #{byte_size(frame)} bytes, where #{@max_frame} are the most"}
  end

  def decode(<<131, 80, _rest::binary>>), do: {:error, "a compressed term"}

  def decode(frame) do
    case :erlang.binary_to_term(frame, [:safe, :used]) do
      {term, used} when used == byte_size(frame) -> {:ok, term}
      {_term, used} -> {:error, too_many(byte_size(frame) - used)}
    end
  rescue
    ArgumentError ->
      {:error, "bytes that are no term, or an atom outside the protocol's vocabulary"}
  end

  defp too_many(1), do: "1 byte too many after a term"
  defp too_many(count), do: "#{count} bytes too many after a term"
end
