/** The files of the first page, by path, as they must be. */
export function firstPage(): Map<string, string>;
