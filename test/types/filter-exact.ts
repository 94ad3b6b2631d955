/** What only `exactOptionalPropertyTypes` tells at compile time; at run time it is refused in any case. */
import type { Filter } from '../../src/search/filter-types.ts'

interface Tenancy {
  tenant: string
  place: { city?: string }
}

export function undefinedOperands(tenant: string | undefined): Filter<Tenancy>[] {
  return [
    // @ts-expect-error a tenant that is not known must not mean all tenants
    { tenant: tenant },
    // @ts-expect-error nor under an operator
    { tenant: { $eq: tenant } },
    // @ts-expect-error nor on a path
    { 'place.city': undefined },
    // @ts-expect-error nor for the id
    { $id: tenant },
  ]
}
